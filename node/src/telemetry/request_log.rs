//! Whether the log has a line for each request, as a directive of the log filter; knows no request.

use serde::{Deserialize, Serialize};

/// Target of the lines about requests, which log filters may name.
pub const REQUEST_TARGET: &str = "request";

/// Whether the log has a line for each request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestLog {
    /// As is usual for the command.
    #[default]
    Auto,
    /// Whatever level the log filter has for everything else.
    On,
    /// No line.
    Off,
}

impl RequestLog {
    /// Returns what is configured, or `usual` where that is left open.
    #[must_use]
    pub fn or(self, usual: RequestLog) -> RequestLog {
        match self {
            RequestLog::Auto => usual,
            RequestLog::On | RequestLog::Off => self,
        }
    }

    /// Returns the log filter with this choice. A filter that names the target has chosen already.
    pub(super) fn within(self, filter: &str) -> String {
        let names_it = filter.split(',').any(|word| word.trim().split('=').next() == Some(REQUEST_TARGET));
        match self {
            RequestLog::On if !names_it => format!("{filter},{REQUEST_TARGET}=info"),
            RequestLog::Off if !names_it => format!("{filter},{REQUEST_TARGET}=off"),
            RequestLog::Auto | RequestLog::On | RequestLog::Off => filter.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_names_requests_wins() {
        assert_eq!(RequestLog::On.within("warn"), "warn,request=info");
        assert_eq!(RequestLog::Off.within("info,router=debug"), "info,router=debug,request=off");
        assert_eq!(RequestLog::Auto.within("info"), "info");
        assert_eq!(RequestLog::Off.within("info, request=debug"), "info, request=debug");
        assert_eq!(RequestLog::Off.within("info,request_x=debug"), "info,request_x=debug,request=off");
        assert_eq!(RequestLog::Auto.or(RequestLog::Off), RequestLog::Off);
        assert_eq!(RequestLog::On.or(RequestLog::Off), RequestLog::On);
    }
}
