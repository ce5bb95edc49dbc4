//! Numeric operations, device memory and mappings; knows no request, scheduler or model.
