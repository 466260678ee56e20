//! What the two runs say: exchanges are compared, outcomes are judged, and a budget that is used up trips its kill.
//!
//! Runs on threads of its own. A trip is in force before anybody is told of it; storing it is the controller's work.

pub mod compare;
pub mod judge;
