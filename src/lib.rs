//! A sidecar that replaces a legacy service by a new one without breaking anything.
//!
//! A request's path through the modules: [`proxy`] takes it, asks [`engine`] (through the snapshot in [`live`]) who
//! serves it, forwards it, and sends a copy to the other side; [`review`] compares what both did and trips a kill when
//! a budget is used up; [`control`] publishes rules and stores, in [`store`], what must survive; [`admin`] shows it all
//! to operators, and [`ofrep`] answers whoever asks for flags itself. [`config`] reads what they wrote, [`telemetry`] is clocks, logs and metrics, [`app`] builds the whole
//! and takes it down, [`cli`] and [`demo`] are its two faces.

#![cfg_attr(not(test), warn(clippy::expect_used, clippy::panic, clippy::unwrap_used))]

pub mod ofrep;
pub mod proxy;

pub mod engine;
pub mod live;

pub mod review;

pub mod control;
pub mod store;

pub mod admin;

pub mod config;
pub mod telemetry;

pub mod app;
pub mod cli;
pub mod demo;
