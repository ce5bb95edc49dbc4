//! Page size with which the system maps a file; small pages make reading weights slower, so the log warns of them.

use std::path::Path;

use super::file::Stored;

/// A smaller share of a file in huge pages is worth a warning.
const HUGE_SHARE_MIN: f64 = 0.5;
/// Smaller files fit in CPU caches, where the page size hardly matters.
const BYTES_MIN: u64 = 64 << 20;

/// Logs how a file is mapped.
pub(super) fn report(stored: &Stored) {
    let (file, bytes) = (stored.path(), stored.bytes());
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    match huge_bytes(&maps, file).map(|huge| huge as f64 / bytes as f64) {
        Some(share) if share < HUGE_SHARE_MIN && bytes >= BYTES_MIN => tracing::warn!(
            file = %file.display(),
            huge_page_percent = (100.0 * share).round(),
            "packed weights lie in small pages, which are slower to read: this file system has no huge ones, or memory \
             was fragmented when they were written"
        ),
        share => {
            let huge_page_percent = share.map(|share| (100.0 * share).round());
            tracing::debug!(file = %file.display(), bytes, huge_page_percent, "packed weights mapped");
        }
    }
}

/// Bytes in huge pages of the first mapping of `file`, from the text of /proc/PID/smaps.
fn huge_bytes(smaps: &str, file: &Path) -> Option<u64> {
    let name = file.to_str()?;
    let mut lines = smaps.lines().skip_while(|line| !line.ends_with(name)).skip(1);
    let field = lines.find_map(|line| line.strip_prefix("FilePmdMapped:"))?;
    field.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_read_from_the_mapping_of_the_file() {
        let smaps = "7f00-7f01 r--s 00000000 fe:00 11 /x/other\nRss: 9 kB\nFilePmdMapped:   77 kB\n\
                     7f01-7f02 r--s 00000000 fe:00 12 /x/weights\nRss: 9 kB\nFilePmdMapped:      4096 kB\nVmFlags: rd\n";
        assert_eq!(huge_bytes(smaps, Path::new("/x/weights")), Some(4096 << 10));
        assert_eq!(huge_bytes(smaps, Path::new("/x/none")), None);
    }
}
