//! What the rest of the program uses to be seen and to tell the time: clocks, metric names, logs, tasks.
//!
//! Imports nothing of ours. It decides nothing and knows no route, flag or shopper.

pub mod clock;
pub mod exporter;
pub mod logs;
pub mod names;
pub mod spawn;
