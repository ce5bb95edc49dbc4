//! Tests of the controllers as machines: scenarios, and closed loops over synthetic workers.

mod plant;
mod scenarios;
mod script;
mod steps;
