//! CSV of the Azure LLM inference traces (Patel et al., "Splitwise", ISCA 2024), with absolute times.

use std::path::Path;

use super::table::Table;
use super::{Raw, push};
use crate::Result;

pub(super) fn read(file: &Path) -> Result<Vec<Raw>> {
    let mut table = Table::open(file, &["TIMESTAMP", "ContextTokens", "GeneratedTokens"])?;
    let mut rows = Vec::new();
    while let Some(fields) = table.next_line()? {
        let form = "a time such as 2023-11-16 18:15:46.6805900";
        let row = Raw {
            at_us: time_us(fields.text(0)).ok_or_else(|| fields.wrong(0, form))?,
            input_tokens: fields.tokens(1)?,
            output_tokens: fields.tokens(2)?,
            blocks: Vec::new(),
            class: None,
            line: fields.line.number,
        };
        push(&mut rows, row, &fields.line)?;
    }
    Ok(rows)
}

/// Reads `YYYY-MM-DD HH:MM:SS[.fraction]`, in UTC; returns microseconds since 1970.
fn time_us(text: &str) -> Option<i64> {
    let text = text.trim_end_matches('Z').trim_end_matches("+00:00");
    let (date, time) = text.split_once([' ', 'T'])?;
    let numbers = |text: &str, by| text.split(by).map(|part| part.parse::<i64>().ok()).collect::<Option<Vec<i64>>>();
    let [year, month, day] = numbers(date, '-')?[..] else { return None };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(clock, ':')?[..] else { return None };
    let is_date = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    if !is_date || !is_time || fraction.is_empty() || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let microseconds: i64 = fraction.chars().chain("000000".chars()).take(6).collect::<String>().parse().ok()?;
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1_000_000 + microseconds)
}

/// Days from 1970-01-01 in the Gregorian calendar (Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_microsecond() {
        assert_eq!(time_us("1970-01-01 00:00:00"), Some(0));
        assert_eq!(time_us("2023-11-16 18:15:46.6805900"), Some(1_700_158_546_680_590));
        assert_eq!(time_us("2024-02-29T23:59:59.5Z"), Some(1_709_251_199_500_000));
        assert_eq!(time_us("2024-05-10 00:00:00.009930+00:00"), Some(1_715_299_200_009_930));
        for text in ["", "2023-11-16", "2023-13-01 00:00:00", "2023-11-16 25:00:00", "x-1-1 0:0:0", "2023-11-16 1:1:1."]
        {
            assert_eq!(time_us(text), None, "{text}");
        }
    }
}
