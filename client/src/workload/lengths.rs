//! Lengths of prompts and answers: fixed, drawn from a distribution, or from a file of pairs. Knows no time.

use std::path::Path;

use super::dice::Dice;
use super::trace::Table;
use crate::{Error, Result};

/// Longest prompt or answer that is made.
pub(super) const TOKENS_MAX: u32 = 1 << 24;

/// Distribution of a length, in tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Lengths {
    /// Always this many.
    Fixed(u32),
    /// Every length from the first to the second equally often.
    Uniform(u32, u32),
    /// Log-normal, at least 1.
    Lognormal {
        /// Mean.
        mean: f64,
        /// Deviation divided by the mean.
        cv: f64,
    },
}

impl Lengths {
    /// Reads `N`, `MIN..MAX` or `lognormal:MEAN,CV`.
    pub fn parse(text: &str) -> Result<Lengths> {
        let tokens = |text: &str| text.trim().parse::<u32>().ok().filter(|tokens| (1..=TOKENS_MAX).contains(tokens));
        let positive = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= 1e7);
        let parsed = if let Some(rest) = text.strip_prefix("lognormal:") {
            let numbers = rest.split_once(',');
            numbers.and_then(|(mean, cv)| Some(Lengths::Lognormal { mean: positive(mean)?, cv: positive(cv)? }))
        } else if let Some((min, max)) = text.split_once("..") {
            let range = tokens(min).zip(tokens(max.trim_start_matches('=')));
            range.filter(|(min, max)| min <= max).map(|(min, max)| Lengths::Uniform(min, max))
        } else {
            tokens(text).map(Lengths::Fixed)
        };
        let form = "expected N, MIN..MAX or lognormal:MEAN,CV, with lengths from 1";
        parsed.ok_or_else(|| Error::Settings(format!("length {text:?}: {form}")))
    }

    pub(super) fn draw(&self, dice: &mut Dice) -> u32 {
        match self {
            Lengths::Fixed(tokens) => *tokens,
            Lengths::Uniform(min, max) => min + dice.below(u64::from(max - min) + 1) as u32,
            Lengths::Lognormal { mean, cv } => {
                dice.lognormal(*mean, *cv).round().clamp(1.0, f64::from(TOKENS_MAX)) as u32
            }
        }
    }
}

impl std::fmt::Display for Lengths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lengths::Fixed(tokens) => write!(f, "{tokens}"),
            Lengths::Uniform(min, max) => write!(f, "{min}..{max}"),
            Lengths::Lognormal { mean, cv } => write!(f, "lognormal:{mean},{cv}"),
        }
    }
}

/// Pairs of prompt and answer length, drawn with equal chance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LengthPairs {
    pairs: Vec<(u32, u32)>,
}

impl LengthPairs {
    /// Reads a CSV file with the columns `input_length` and `output_length`. Pairs with a 0 are left out.
    pub fn read(file: &Path) -> Result<LengthPairs> {
        let mut pairs = Vec::new();
        let mut table = Table::open(file, &["input_length", "output_length"])?;
        while let Some(line) = table.next_line()? {
            let pair = (line.tokens(0)?, line.tokens(1)?);
            if pair.0 > 0 && pair.1 > 0 {
                pairs.push(pair);
            }
        }
        let problem = "no pair of lengths above 0".to_owned();
        if pairs.is_empty() { Err(Error::File { file: file.to_owned(), problem }) } else { Ok(LengthPairs { pairs }) }
    }

    pub(super) fn draw(&self, dice: &mut Dice) -> (u32, u32) {
        self.pairs[dice.below(self.pairs.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::super::dice::Purpose;
    use super::*;

    #[test]
    fn lengths_are_read_and_drawn() {
        let mut dice = Dice::new(3, Purpose::Inputs);
        for text in ["512", "100..200", "lognormal:512,0.5"] {
            assert_eq!(Lengths::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Lengths::parse("7").unwrap().draw(&mut dice), 7);
        let uniform = Lengths::parse("3..5").unwrap();
        let mut drawn: Vec<u32> = (0..200).map(|_| uniform.draw(&mut dice)).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, [3, 4, 5]);
        for text in ["0", "", "5..3", "0..3", "lognormal:5", "lognormal:0,1", "lognormal:5,nan", "1e3", "99999999"] {
            let error = Lengths::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("length {text:?}: expected N, MIN..MAX")), "{error}");
        }
    }
}
