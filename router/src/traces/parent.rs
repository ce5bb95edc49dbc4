//! The header `traceparent`, as W3C's Trace Context describes it; knows no span.

/// Place of a request in its client's trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) sampling: Sampling,
}

/// Whether the client keeps the trace; then so do we.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sampling {
    Kept,
    Dropped,
}

impl Parent {
    /// Reads the header; a malformed one counts as absent, as the standard wants it.
    pub(crate) fn read(header: &str) -> Option<Parent> {
        let mut parts = header.trim().split('-');
        let mut hex = |digits: usize| parts.next().filter(|part| is_hex(part, digits));
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        // Later versions may have more parts.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        let is_kept = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Parent { trace, span, sampling: if is_kept { Sampling::Kept } else { Sampling::Dropped } })
    }
}

fn is_hex(part: &str, digits: usize) -> bool {
    part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_standard_allows_is_a_parent() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = Parent::read(good).unwrap();
        assert_eq!((parent.trace, parent.span), (0x4bf92f3577b34da6a3ce929d0e0e4736, 0x00f067aa0ba902b7));
        assert_eq!(parent.sampling, Sampling::Kept);
        assert_eq!(Parent::read(&good.replace("-01", "-00")).unwrap().sampling, Sampling::Dropped);
        assert!(Parent::read(&format!("01{}-more", &good[2..])).is_some(), "a later version");
        for bad in [
            "",
            "00",
            &format!("{good}-more"),
            &format!("ff{}", &good[2..]),
            &good.to_uppercase(),
            &good.replace("00f067aa0ba902b7", "0000000000000000"),
            &good.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &good.replace("4bf9", "4bg9"),
            "00-ä-ö-ü",
        ] {
            assert_eq!(Parent::read(bad), None, "{bad}");
        }
    }
}
