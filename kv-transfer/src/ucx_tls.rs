//! UCX transports that a worker may open, by their names in `UCX_TLS`; knows no library.
//!
//! The names that are allowed are listed, not those that are refused: UCX accepts many spellings (`all`, `^ib`, `\tcp`,
//! aliases for several transports), and none of them may lead to its `tcp`.

/// Trust in the RDMA fabric: every host that reaches it can write this worker's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fabric {
    /// Only transports of this host are allowed.
    Untrusted,
    /// RDMA transports are allowed too.
    Trusted,
}

/// Reach of the transports of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UcxReach {
    /// Processes of this host.
    OneHost,
    /// Other hosts, over RDMA.
    Fabric,
}

/// Refusal of a list of UCX transports, because of one name in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedUcxTls {
    /// A name that lets UCX use its TCP.
    #[error(
        "is {list:?}, which {name:?} lets run over UCX's tcp: that listens on every interface and carries out writes to \
         any address for whoever connects; name posix,cma for one host, or use the transport tcp"
    )]
    Tcp {
        /// The whole list.
        list: String,
        /// The refused name.
        name: String,
    },
    /// An RDMA transport where the fabric is not trusted.
    #[error(
        "is {list:?}, and {name:?} reaches an RDMA fabric: whoever else reaches it can write this worker's memory; say \
         ucx_trusts_fabric = true if nobody can who should not"
    )]
    Fabric {
        /// The whole list.
        list: String,
        /// The refused name.
        name: String,
    },
    /// A name that is not known here.
    #[error("is {list:?}, and {name:?} is none of {known}")]
    Unknown {
        /// The whole list.
        list: String,
        /// The refused name.
        name: String,
        /// All names that may be allowed.
        known: String,
    },
}

/// Transports of one host; `sm`, `shm` and `mm` are UCX's aliases for several of the first three.
const ONE_HOST: [&str; 7] = ["posix", "sysv", "cma", "self", "sm", "shm", "mm"];
/// Transports whose receive queues are System V segments, open to the process's group.
const SYSTEM_V: [&str; 4] = ["sysv", "sm", "shm", "mm"];
const CROSS_MEMORY: [&str; 3] = ["cma", "sm", "shm"];
const FABRIC: [&str; 14] = [
    "ib", "rc", "rc_v", "rc_x", "rc_verbs", "rc_mlx5", "ud", "ud_v", "ud_x", "ud_verbs", "ud_mlx5", "dc", "dc_x",
    "dc_mlx5",
];

/// Checks a list of transports in the syntax of `UCX_TLS` and returns its reach.
pub fn check_ucx_tls(list: &str, fabric: Fabric) -> Result<UcxReach, RefusedUcxTls> {
    let mut reach = UcxReach::OneHost;
    for name in names(list) {
        let (list, name) = (list.to_owned(), name.to_owned());
        if FABRIC.contains(&name.as_str()) {
            match fabric {
                Fabric::Untrusted => return Err(RefusedUcxTls::Fabric { list, name }),
                Fabric::Trusted => reach = UcxReach::Fabric,
            }
        } else if opens_tcp(&name) {
            return Err(RefusedUcxTls::Tcp { list, name });
        } else if !ONE_HOST.contains(&name.as_str()) {
            let known = ONE_HOST.iter().chain(&FABRIC).copied().collect::<Vec<_>>().join(", ");
            return Err(RefusedUcxTls::Unknown { list, name, known });
        }
    }
    Ok(reach)
}

/// Whether a checked list makes UCX attach to the memory of the peer's process.
#[cfg_attr(not(feature = "ucx"), allow(dead_code, reason = "only the transport asks"))]
pub(crate) fn attaches(list: &str) -> bool {
    names(list).any(|name| CROSS_MEMORY.contains(&name))
}

#[cfg_attr(not(feature = "ucx"), allow(dead_code, reason = "only the transport asks"))]
pub(crate) fn uses_system_v(list: &str) -> bool {
    names(list).any(|name| SYSTEM_V.contains(&name))
}

/// Whether UCX can receive only through files in /dev/shm with a checked list.
#[cfg_attr(not(feature = "ucx"), allow(dead_code, reason = "only the transport asks"))]
pub(crate) fn needs_dev_shm(list: &str) -> bool {
    names(list).all(|name| !SYSTEM_V.contains(&name) && !FABRIC.contains(&name))
        && names(list).any(|name| name == "posix")
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

/// Whether UCX would open its tcp for this name. An empty name and a negated one mean every transport not named.
fn opens_tcp(name: &str) -> bool {
    let plain = name.trim_start_matches('\\').split(':').next().unwrap_or_default();
    name.is_empty() || name.starts_with('^') || name.contains('*') || matches!(plain, "tcp" | "all" | "sockcm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_say_tcp_is_refused() {
        let ways =
            ["tcp", "cma,tcp", "sm,tcp", "all", "", "^cma", "^ib", "\\tcp", "tcp:aux", "*", " tcp ", "cma,", "sockcm"];
        for list in ways {
            for fabric in [Fabric::Untrusted, Fabric::Trusted] {
                let refused = check_ucx_tls(list, fabric).unwrap_err();
                assert!(matches!(refused, RefusedUcxTls::Tcp { .. }), "{list:?}: {refused}");
            }
        }
        let unknown = check_ucx_tls("posix,TCP", Fabric::Trusted).unwrap_err().to_string();
        assert!(unknown.starts_with("is \"posix,TCP\", and \"TCP\" is none of posix, sysv,"), "{unknown}");
    }

    #[test]
    fn rdma_needs_a_trusted_fabric() {
        for list in FABRIC {
            let refused = check_ucx_tls(list, Fabric::Untrusted).unwrap_err().to_string();
            assert!(refused.contains("ucx_trusts_fabric"), "{refused}");
            assert_eq!(check_ucx_tls(list, Fabric::Trusted), Ok(UcxReach::Fabric));
        }
        assert_eq!(check_ucx_tls("posix,cma,rc", Fabric::Trusted), Ok(UcxReach::Fabric));
    }

    #[test]
    fn one_host_needs_no_trust() {
        for list in ["posix,cma", "posix,sysv,cma", " posix , cma ", "sm", "self,posix"] {
            assert_eq!(check_ucx_tls(list, Fabric::Untrusted), Ok(UcxReach::OneHost), "{list}");
        }
        assert!(attaches("posix,cma") && attaches("sm") && !attaches("posix"));
        assert!(needs_dev_shm("posix,cma") && needs_dev_shm("self,posix"));
        assert!(!["posix,sysv,cma", "sm", "cma", "rc,posix"].into_iter().any(needs_dev_shm));
        assert!(uses_system_v("posix,sysv") && uses_system_v("sm") && !uses_system_v("posix,cma"));
    }
}
