//! Python's `strftime`, in UTC; knows no clock.

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

/// Formats seconds since 1970 as Python's `strftime` does over glibc in the C locale. Unknown directives stay as they
/// are.
pub(super) fn strftime(format: &str, unix_seconds: u64) -> String {
    let time = Time::of(unix_seconds);
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let directive = &rest[at + 1..];
        let flags = directive.len() - directive.trim_start_matches(['-', '_', '^', '#', '0', 'E', 'O', ':']).len();
        let code = directive[flags..].chars().next();
        match code.and_then(|code| time.field(code)) {
            Some(field) => {
                out.push_str(&flagged(field, &directive[..flags]));
                rest = &directive[flags + 1..];
            }
            None => {
                out.push('%');
                rest = directive;
            }
        }
    }
    out + rest
}

enum Field {
    Text(String),
    /// Number, width, and fill character.
    Number(u64, usize, char),
}

fn flagged(field: Field, flags: &str) -> String {
    match field {
        Field::Text(text) if flags.contains('^') => text.to_uppercase(),
        Field::Text(text) => text,
        Field::Number(number, _, _) if flags.contains('-') => number.to_string(),
        Field::Number(number, width, _) if flags.contains('_') => format!("{number:width$}"),
        Field::Number(number, width, ' ') if !flags.contains('0') => format!("{number:width$}"),
        Field::Number(number, width, _) => format!("{number:0width$}"),
    }
}

struct Time {
    unix_seconds: u64,
    days: u64,
    second: u64,
    date: Date,
}

impl Time {
    fn of(unix_seconds: u64) -> Time {
        let days = unix_seconds / SECONDS_PER_DAY;
        Time { unix_seconds, days, second: unix_seconds % SECONDS_PER_DAY, date: Date::of(days) }
    }

    fn field(&self, code: char) -> Option<Field> {
        let date = &self.date;
        let hour = self.second / 3600;
        let two = |number: u64| Field::Number(number, 2, '0');
        let again = |format: &str| Field::Text(strftime(format, self.unix_seconds));
        Some(match code {
            'Y' => Field::Number(date.year, 4, '0'),
            'C' => two(date.year / 100),
            'y' => two(date.year % 100),
            'm' => two(date.month0 as u64 + 1),
            'd' => two(date.day),
            'e' => Field::Number(date.day, 2, ' '),
            'B' => Field::Text(MONTHS[date.month0].to_owned()),
            'b' | 'h' => Field::Text(MONTHS[date.month0][..3].to_owned()),
            'A' => Field::Text(weekday(self.days).to_owned()),
            'a' => Field::Text(weekday(self.days)[..3].to_owned()),
            'w' => Field::Number(self.weekday0(), 1, '0'),
            'u' => Field::Number((self.weekday0() + 6) % 7 + 1, 1, '0'),
            'H' => two(hour),
            'k' => Field::Number(hour, 2, ' '),
            'I' => two((hour + 11) % 12 + 1),
            'l' => Field::Number((hour + 11) % 12 + 1, 2, ' '),
            'p' => Field::Text(if hour < 12 { "AM" } else { "PM" }.to_owned()),
            'P' => Field::Text(if hour < 12 { "am" } else { "pm" }.to_owned()),
            'M' => two(self.second / 60 % 60),
            'S' => two(self.second % 60),
            'f' => Field::Number(0, 6, '0'),
            's' => Field::Number(self.unix_seconds, 1, '0'),
            'j' => Field::Number(self.day_of_year0() + 1, 3, '0'),
            'U' => two((self.day_of_year0() + 7 - self.weekday0()) / 7),
            'W' => two((self.day_of_year0() + 7 - (self.weekday0() + 6) % 7) / 7),
            'V' => two(self.iso_week().1),
            'G' => Field::Number(self.iso_week().0, 4, '0'),
            'g' => two(self.iso_week().0 % 100),
            'c' => again("%a %b %e %H:%M:%S %Y"),
            'x' | 'D' => again("%m/%d/%y"),
            'X' | 'T' => again("%H:%M:%S"),
            'R' => again("%H:%M"),
            'r' => again("%I:%M:%S %p"),
            'F' => again("%Y-%m-%d"),
            // The time has no zone, as that of `datetime.now()`.
            'Z' | 'z' => Field::Text(String::new()),
            'n' => Field::Text("\n".to_owned()),
            't' => Field::Text("\t".to_owned()),
            '%' => Field::Text("%".to_owned()),
            _ => return None,
        })
    }

    fn weekday0(&self) -> u64 {
        (self.days + 4) % 7
    }

    fn day_of_year0(&self) -> u64 {
        self.days - first_day(self.date.year)
    }

    /// Year and week by ISO 8601, which counts a week to the year of its Thursday.
    fn iso_week(&self) -> (u64, u64) {
        let thursday = self.days + 3 - (self.weekday0() + 6) % 7;
        let year = Date::of(thursday).year;
        (year, (thursday - first_day(year)) / 7 + 1)
    }
}

/// Days from 1970-01-01 to the first day of a year.
fn first_day(year: u64) -> u64 {
    let before = year.saturating_sub(1);
    (year.saturating_sub(1970)) * 365 + (before / 4 - before / 100 + before / 400) - 477
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
        assert_eq!(strftime(full, 0), "Thursday 01 January 1970 00:00:00");
        assert_eq!(strftime(full, 951_827_696), "Tuesday 29 February 2000 12:34:56");
        assert_eq!(strftime("%a %b %e %y 100%%", 1_735_689_599), "Tue Dec 31 24 100%");
        assert_eq!(strftime("%Y-%m-%d", 4_102_444_800), "2100-01-01");
    }

    #[test]
    fn every_directive_of_python() {
        // Python: datetime.fromtimestamp(951_827_696, UTC).replace(tzinfo=None).strftime(…)
        let format = "%-d %_d %^a %I %p %j %U %W %V %G %u %w %c %x %X %D %T %R %F %C %k %l %f [%Z%z]";
        let expected = "29 29 TUE 12 PM 060 09 09 09 2000 2 2 Tue Feb 29 12:34:56 2000 02/29/00 12:34:56 02/29/00 \
                        12:34:56 12:34 2000-02-29 20 12 12 000000 []";
        assert_eq!(strftime(format, 951_827_696), expected);
        assert_eq!(strftime("%j %V %G", 1_735_689_599), "366 01 2025");
        assert_eq!(strftime("%Q 100%", 0), "%Q 100%");
    }
}
