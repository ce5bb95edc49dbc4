//! `GET /metrics`: series of the router, and of the workers that it was told about.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use metrics::counter;
use node::names;
use tracing::debug;

use super::App;
use super::federation::{Families, scrape};
use crate::MetricsSource;

pub(super) async fn handle(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let scraped = join_all(app.metrics_of.iter().map(of_worker)).await;
    let mut families = Families::default();
    families.add(&app.recorded.render(), None);
    for (source, text) in scraped.into_iter().flatten() {
        families.add(&text, Some(&source.worker));
    }
    let mut page = families.render();
    app.recorded.names().or_asked_by(query.as_deref()).complete(&mut page);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

/// Fetches a worker's metrics; a worker that does not answer is counted and left out.
async fn of_worker(source: &MetricsSource) -> Option<(&MetricsSource, String)> {
    match scrape(&source.address).await {
        Ok(text) => Some((source, text)),
        Err(reason) => {
            debug!(worker = source.worker, address = source.address, reason, "worker's metrics are not there");
            let worker = source.worker.clone();
            counter!(names::SCRAPE_FAILED_TOTAL, "role" => "router", "worker" => worker).increment(1);
            None
        }
    }
}
