//! The part of `strftime` that chat templates use, in UTC; knows no clock.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SECONDS_PER_DAY: u64 = 86_400;

/// Formats a time given in seconds since 1970.
///
/// # Errors
/// The directive that is not known; NUL for a lone `%` at the end.
pub(super) fn strftime(format: &str, unix_seconds: u64) -> Result<String, char> {
    let days = unix_seconds / SECONDS_PER_DAY;
    let second = unix_seconds % SECONDS_PER_DAY;
    let date = Date::of(days);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let text = match chars.next() {
            Some('Y') => date.year.to_string(),
            Some('y') => format!("{:02}", date.year % 100),
            Some('m') => format!("{:02}", date.month0 + 1),
            Some('d') => format!("{:02}", date.day),
            Some('e') => format!("{:2}", date.day),
            Some('B') => MONTHS[date.month0].to_owned(),
            Some('b') => MONTHS[date.month0][..3].to_owned(),
            Some('A') => weekday(days).to_owned(),
            Some('a') => weekday(days)[..3].to_owned(),
            Some('H') => format!("{:02}", second / 3600),
            Some('M') => format!("{:02}", second / 60 % 60),
            Some('S') => format!("{:02}", second % 60),
            Some('%') => "%".to_owned(),
            Some(other) => return Err(other),
            None => return Err('\0'),
        };
        out.push_str(&text);
    }
    Ok(out)
}

/// 1970-01-01 was a Thursday.
fn weekday(days: u64) -> &'static str {
    DAYS[((days + 4) % 7) as usize]
}

struct Date {
    year: u64,
    month0: usize,
    day: u64,
}

impl Date {
    /// Counts eras of 400 years from 0000-03-01, so that the leap day is the last of its year (Hinnant, "chrono-
    /// compatible low-level date algorithms", `civil_from_days`).
    fn of(days: u64) -> Date {
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month0 = ((month_from_march + 2) % 12) as usize;
        let year = era * 400 + year_of_era + u64::from(month0 < 2);
        Date { year, month0, day }
    }
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn known_dates() {
        let full = "%A %d %B %Y %H:%M:%S";
        assert_eq!(strftime(full, 0).unwrap(), "Thursday 01 January 1970 00:00:00");
        assert_eq!(strftime(full, 951_827_696).unwrap(), "Tuesday 29 February 2000 12:34:56");
        assert_eq!(strftime("%a %b %e %y 100%%", 1_735_689_599).unwrap(), "Tue Dec 31 24 100%");
        assert_eq!(strftime("%Y-%m-%d", 4_102_444_800).unwrap(), "2100-01-01");
    }

    #[test]
    fn unknown_directives_are_named() {
        assert_eq!(strftime("%Q", 0), Err('Q'));
        assert_eq!(strftime("100%", 0), Err('\0'));
    }
}
