//! Latency classes: their targets in the configuration and their names in requests; knows no request.

use node::config::Fault;
use sched::{Slo, Span};
use serde::{Deserialize, Serialize};

use crate::openai::ApiError;

/// The latency classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SloConfig {
    /// The class of requests that name none.
    pub default_class: String,
    /// The classes.
    pub classes: Vec<SloClass>,
}

/// Latency class. A target of 0 means none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SloClass {
    /// Name in requests and in metric labels.
    pub name: String,
    /// Milliseconds to the first token.
    #[serde(default)]
    pub ttft_ms: u64,
    /// Milliseconds per token after the first, on average over a choice.
    #[serde(default)]
    pub tpot_ms: u64,
    /// Milliseconds between two tokens at `itl_quantile`.
    #[serde(default)]
    pub itl_ms: u64,
    /// Quantile of a request's own gaps by which it is judged, in (0, 1].
    #[serde(default = "itl_quantile_default")]
    pub itl_quantile: f64,
}

const fn itl_quantile_default() -> f64 {
    0.99
}

impl Default for SloConfig {
    fn default() -> Self {
        let class = |name: &str, ttft_ms, tpot_ms| SloClass {
            name: name.to_owned(),
            ttft_ms,
            tpot_ms,
            itl_ms: 0,
            itl_quantile: itl_quantile_default(),
        };
        SloConfig {
            default_class: "interactive".to_owned(),
            classes: vec![class("interactive", 1_000, 100), class("batch", 0, 0)],
        }
    }
}

impl SloConfig {
    /// Checks that the classes fit together.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self) -> Result<(), Fault> {
        let wrong = |key: String, problem: String| Err(Fault::of(format!("router.slo.{key}"), problem));
        if self.index_of(&self.default_class).is_none() {
            let problem = format!("is {:?}, which is none of the classes", self.default_class);
            return wrong("default_class".to_owned(), problem);
        }
        if u16::try_from(self.classes.len()).is_err() {
            return wrong("classes".to_owned(), format!("are {}, too many", self.classes.len()));
        }
        for (index, class) in self.classes.iter().enumerate() {
            if class.name.is_empty() {
                return wrong(format!("classes[{index}].name"), "is empty".to_owned());
            }
            if self.index_of(&class.name) != Some(index) {
                let problem = format!("is {:?}: there are two classes of this name", class.name);
                return wrong(format!("classes[{index}].name"), problem);
            }
            if !(class.itl_quantile > 0.0 && class.itl_quantile <= 1.0) {
                let problem = format!("must lie in (0, 1], found {}", class.itl_quantile);
                return wrong(format!("classes[{index}].itl_quantile"), problem);
            }
        }
        Ok(())
    }

    /// Returns the targets of the class that a request names, or of the default class.
    ///
    /// # Errors
    /// When there is no such class; the error lists the existing ones.
    pub fn resolve(&self, name: Option<&str>) -> Result<Slo, ApiError> {
        let name = name.unwrap_or(&self.default_class);
        match self.index_of(name) {
            Some(index) => Ok(self.targets(index)),
            None => {
                let known: Vec<&str> = self.classes.iter().map(|class| class.name.as_str()).collect();
                let message = format!("there is no latency class {name:?}; there are {}", known.join(", "));
                Err(ApiError::invalid("slo_class", message))
            }
        }
    }

    pub(crate) fn itl_quantile(&self, slo: &Slo) -> f64 {
        self.classes.get(usize::from(slo.class)).map_or_else(itl_quantile_default, |class| class.itl_quantile)
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.classes.iter().position(|class| class.name == name)
    }

    fn targets(&self, index: usize) -> Slo {
        let class = &self.classes[index];
        let target = |ms: u64| (ms > 0).then(|| Span::from_ms(ms));
        Slo {
            class: u16::try_from(index).unwrap_or(u16::MAX),
            ttft: target(class.ttft_ms),
            tpot: target(class.tpot_ms),
            itl_tail: target(class.itl_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_name() {
        let slo = SloConfig::default();
        let interactive =
            Slo { class: 0, ttft: Some(Span::from_ms(1_000)), tpot: Some(Span::from_ms(100)), itl_tail: None };
        assert_eq!(slo.resolve(None).unwrap(), interactive);
        assert_eq!(slo.resolve(Some("batch")).unwrap(), Slo { class: 1, ..Slo::default() });
        let error = slo.resolve(Some("gold")).unwrap_err();
        assert_eq!(error.message, r#"there is no latency class "gold"; there are interactive, batch"#);
    }

    #[test]
    fn contradictions_are_named() {
        let mut slo = SloConfig { default_class: "gold".to_owned(), ..SloConfig::default() };
        assert!(slo.check().unwrap_err().problem.contains("gold"));
        slo = SloConfig::default();
        slo.classes[1].name = "interactive".to_owned();
        assert!(slo.check().unwrap_err().problem.contains("two classes"));
        slo = SloConfig::default();
        slo.classes[1].itl_quantile = 0.0;
        assert_eq!(slo.check().unwrap_err().key, "router.slo.classes[1].itl_quantile");
    }
}
