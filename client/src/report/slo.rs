//! SLO classes: targets for latencies, and which requests meet them. Knows no percentiles over requests.

use serde::Serialize;

use crate::run::Record;
use crate::{Error, Result};

/// Targets of one class; a target that is absent is always met.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct SloClass {
    /// Name.
    pub name: String,
    /// Longest time to the first token, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
    /// Longest mean time per token after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpot_ms: Option<f64>,
    /// Longest 99th percentile of the gaps between the tokens of one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub itl_p99_ms: Option<f64>,
    /// Longest time to the last token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e2e_ms: Option<f64>,
}

/// Classes of a run, at least one. Requests without a class, or with one that is not listed, belong to the first.
#[derive(Debug, Clone, PartialEq)]
pub struct SloClasses(Vec<SloClass>);

impl SloClass {
    /// Reads `NAME=ttft_ms:200,tpot_ms:50`, or the targets alone for a class named `default`.
    pub fn parse(text: &str) -> Result<SloClass> {
        let wrong = |problem: String| {
            let form = "expected [NAME=]ttft_ms:200,tpot_ms:50 with ttft_ms, tpot_ms, itl_p99_ms, e2e_ms";
            Error::Settings(format!("SLO {text:?}: {problem}; {form}"))
        };
        let (name, targets) = text.split_once('=').unwrap_or(("default", text));
        if name.trim().is_empty() {
            return Err(wrong("the name is empty".to_owned()));
        }
        let mut class = SloClass { name: name.trim().to_owned(), ..SloClass::default() };
        for target in targets.split(',') {
            let (name, ms) = target.split_once(':').ok_or_else(|| wrong(format!("{target:?} has no value")))?;
            let ms = ms.trim().parse().ok().filter(|ms: &f64| *ms > 0.0 && ms.is_finite());
            let ms = ms.ok_or_else(|| wrong(format!("{target:?} is no time above 0")))?;
            let place = match name.trim() {
                "ttft_ms" => &mut class.ttft_ms,
                "tpot_ms" => &mut class.tpot_ms,
                "itl_p99_ms" => &mut class.itl_p99_ms,
                "e2e_ms" => &mut class.e2e_ms,
                other => return Err(wrong(format!("there is no target {other:?}"))),
            };
            if place.replace(ms).is_some() {
                return Err(wrong(format!("{} is given twice", name.trim())));
            }
        }
        Ok(class)
    }

    /// True if the request ended well and met every target. A target about gaps is met by an answer without gaps.
    #[must_use]
    pub fn is_met_by(&self, record: &Record) -> bool {
        let within = |target_ms: Option<f64>, us: Option<f64>| match (target_ms, us) {
            (Some(target_ms), Some(us)) => us <= target_ms * 1e3,
            (None, _) | (_, None) => true,
        };
        record.failure.is_none()
            && within(self.ttft_ms, record.ttft_us().map(|us| us as f64))
            && within(self.e2e_ms, record.e2e_us().map(|us| us as f64))
            && within(self.tpot_ms, record.tpot_us())
            && (self.itl_p99_ms.is_none() || within(self.itl_p99_ms, itl_p99_us(record)))
    }

    /// True if there is any target.
    #[must_use]
    pub fn has_targets(&self) -> bool {
        [self.ttft_ms, self.tpot_ms, self.itl_p99_ms, self.e2e_ms].iter().any(Option::is_some)
    }
}

/// 99th percentile of the gaps of one request, by nearest rank.
fn itl_p99_us(record: &Record) -> Option<f64> {
    let mut gaps: Vec<(f64, u32)> = record.gaps_us().collect();
    gaps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: u64 = gaps.iter().map(|(_, tokens)| u64::from(*tokens)).sum();
    let rank = (total as f64 * 0.99).ceil() as u64;
    let mut seen = 0;
    gaps.into_iter().find_map(|(gap, tokens)| {
        seen += u64::from(tokens);
        (seen >= rank).then_some(gap)
    })
}

impl SloClasses {
    /// Classes by name; without any, one class `default` without targets. Two of one name are an error.
    pub fn new(classes: Vec<SloClass>) -> Result<SloClasses> {
        if let Some(twice) = (1..classes.len()).find(|at| classes[..*at].iter().any(|c| c.name == classes[*at].name)) {
            return Err(Error::Settings(format!("SLO class {:?} is given twice", classes[twice].name)));
        }
        let without = SloClass { name: "default".to_owned(), ..SloClass::default() };
        Ok(SloClasses(if classes.is_empty() { vec![without] } else { classes }))
    }

    /// All classes.
    #[must_use]
    pub fn all(&self) -> &[SloClass] {
        &self.0
    }

    /// Place of the class of a request.
    #[must_use]
    pub fn place_of(&self, record: &Record) -> usize {
        let named = record.class.as_deref().and_then(|name| self.0.iter().position(|class| class.name == name));
        named.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Failure, FailureKind, tests::record};

    #[test]
    fn classes_are_read() {
        let class = SloClass::parse("chat=ttft_ms:200, tpot_ms:50,itl_p99_ms:80.5").unwrap();
        let expected = SloClass {
            name: "chat".to_owned(),
            ttft_ms: Some(200.0),
            tpot_ms: Some(50.0),
            itl_p99_ms: Some(80.5),
            e2e_ms: None,
        };
        assert_eq!(class, expected);
        assert_eq!(SloClass::parse("e2e_ms:9").unwrap().name, "default");
        for (text, problem) in [
            ("", "\"\" has no value"),
            ("=ttft_ms:1", "the name is empty"),
            ("a=ttft_ms", "\"ttft_ms\" has no value"),
            ("a=ttft_ms:0", "\"ttft_ms:0\" is no time above 0"),
            ("a=ttft:5", "there is no target \"ttft\""),
            ("a=ttft_ms:5,ttft_ms:6", "ttft_ms is given twice"),
        ] {
            let error = SloClass::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("SLO {text:?}: {problem}; expected ")), "{error}");
        }
        assert!(SloClasses::new(vec![class.clone(), class]).is_err());
    }

    #[test]
    fn a_request_meets_all_targets_or_misses() {
        let met = |slo: &str, record: &Record| SloClass::parse(slo).unwrap().is_met_by(record);
        let good = record(&[(100, 1), (110, 1), (140, 1)], Some(3));
        assert!(met("ttft_ms:100,tpot_ms:20,itl_p99_ms:30,e2e_ms:140", &good));
        for slo in ["ttft_ms:99", "tpot_ms:19", "itl_p99_ms:29", "e2e_ms:139"] {
            assert!(!met(slo, &good), "{slo}");
        }
        assert!(met("tpot_ms:1", &record(&[(100, 1)], Some(1))), "an answer of one token has no gap");
        let failure = Some(Failure { kind: FailureKind::Cut, message: String::new() });
        assert!(!met("ttft_ms:1000", &Record { failure, ..good }), "a failure misses");
    }

    #[test]
    fn requests_of_unknown_classes_belong_to_the_first() {
        let named = |name: &str| SloClass { name: name.to_owned(), ..SloClass::default() };
        let classes = SloClasses::new(vec![named("a"), named("b")]).unwrap();
        let of = |class: Option<&str>| Record { class: class.map(Into::into), ..record(&[], None) };
        assert_eq!([None, Some("a"), Some("b"), Some("c")].map(|class| classes.place_of(&of(class))), [0, 0, 1, 0]);
    }
}
