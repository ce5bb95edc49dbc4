//! Whole-system tests: modes, faults, API, repository rules.
