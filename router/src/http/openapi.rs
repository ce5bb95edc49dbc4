//! `GET /openapi.json`.

use axum::response::Response;

use super::reply;
use crate::openai::openapi;

pub(super) async fn handle() -> Response {
    reply::json(openapi())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::arrival::{GENERATING, MODEL, OTHERS};
    use super::*;

    #[test]
    fn it_describes_every_path_and_no_other() {
        let document: Value = serde_json::from_slice(&openapi()).unwrap();
        let described: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let served: BTreeSet<&str> = GENERATING.iter().chain(OTHERS).chain([&MODEL]).copied().collect();
        assert_eq!(described, served);
    }
}
