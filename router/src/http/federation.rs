//! Fetches and merges the metrics of several processes; knows the Prometheus text format, not what is counted.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use node::telemetry::VLLM_PREFIX;
use tokio::net::TcpStream;

/// Time in which a process must answer.
const SCRAPE_TIME_MAX: Duration = Duration::from_millis(1_000);
/// Largest answer that is read.
const SCRAPE_BYTES_MAX: usize = 8 << 20;

/// Metrics by name, so that each is declared once for all processes.
#[derive(Debug, Default)]
pub(super) struct Families {
    families: BTreeMap<String, Family>,
}

#[derive(Debug, Default)]
struct Family {
    help: Option<String>,
    kind: Option<String>,
    samples: Vec<String>,
}

impl Families {
    /// Adds all series of `text`, with the label `worker` if given.
    pub(super) fn add(&mut self, text: &str, worker: Option<&str>) {
        let mut declared = String::new();
        for line in text.lines() {
            if let Some((name, help)) = declaration(line, "# HELP ") {
                name.clone_into(&mut declared);
                self.of(name).help.get_or_insert_with(|| help.to_owned());
            } else if let Some((name, kind)) = declaration(line, "# TYPE ") {
                name.clone_into(&mut declared);
                self.of(name).kind.get_or_insert_with(|| kind.to_owned());
            } else if !line.is_empty() && !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap_or_default();
                // Samples of a histogram have its name and a suffix.
                let family = if name.starts_with(&declared) && !declared.is_empty() { &declared } else { name };
                let sample = worker.map_or_else(|| line.to_owned(), |worker| labelled(line, worker));
                self.of(family).samples.push(sample);
            }
        }
    }

    fn of(&mut self, name: &str) -> &mut Family {
        self.families.entry(name.to_owned()).or_default()
    }

    /// Writes all series but those under vLLM's names, which are made anew from the series of all processes.
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        for (name, family) in self.families.iter().filter(|(name, _)| !name.starts_with(VLLM_PREFIX)) {
            for (word, text) in [("HELP", &family.help), ("TYPE", &family.kind)] {
                if let Some(text) = text {
                    out.push_str(&format!("# {word} {name} {text}\n"));
                }
            }
            for sample in &family.samples {
                out.push_str(sample);
                out.push('\n');
            }
        }
        out
    }
}

fn declaration<'a>(line: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let rest = line.strip_prefix(word)?;
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}

/// Returns the sample with the label `worker`.
fn labelled(line: &str, worker: &str) -> String {
    let worker = worker.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    match line.split_once('{') {
        Some((name, rest)) if rest.starts_with('}') => format!("{name}{{worker=\"{worker}\"{rest}"),
        Some((name, rest)) => format!("{name}{{worker=\"{worker}\",{rest}"),
        None => match line.split_once(' ') {
            Some((name, value)) => format!("{name}{{worker=\"{worker}\"}} {value}"),
            None => line.to_owned(),
        },
    }
}

/// Fetches the metrics of the process whose admin surface is at `address`; an error is text for the log.
pub(super) async fn scrape(address: &str) -> Result<String, String> {
    match tokio::time::timeout(SCRAPE_TIME_MAX, fetch(address)).await {
        Ok(fetched) => fetched,
        Err(_) => Err(format!("no answer within {SCRAPE_TIME_MAX:?}")),
    }
}

async fn fetch(address: &str) -> Result<String, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = hyper::Request::get("/metrics")
        .header("host", address)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status()));
        }
        let body = Limited::new(response.into_body(), SCRAPE_BYTES_MAX);
        let bytes = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        // The connection does the reading and writing; if it ends first, the exchange knows why.
        _ = connection => exchange.await,
        fetched = &mut exchange => fetched,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn families_are_declared_once_and_series_are_labelled() {
        let mut families = Families::default();
        families.add("# HELP a_total Counts.\n# TYPE a_total counter\na_total{role=\"router\"} 1\n", None);
        let worker = "# TYPE a_total counter\na_total{role=\"decode\"} 2\n\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 3\nh_count{} 1\nplain 7\n# TYPE vllm:x gauge\nvllm:x 1\n";
        families.add(worker, Some("decode-\"0\""));
        expect![[r##"
            # HELP a_total Counts.
            # TYPE a_total counter
            a_total{role="router"} 1
            a_total{worker="decode-\"0\"",role="decode"} 2
            # TYPE h histogram
            h_bucket{worker="decode-\"0\"",le="1"} 1
            h_sum{worker="decode-\"0\""} 3
            h_count{worker="decode-\"0\""} 1
            plain{worker="decode-\"0\""} 7
        "##]]
        .assert_eq(&families.render());
    }

    #[tokio::test]
    async fn a_process_that_is_not_there_is_an_error() {
        assert!(scrape("127.0.0.1:1").await.is_err());
        assert!(scrape("nonsense").await.is_err());
    }
}
