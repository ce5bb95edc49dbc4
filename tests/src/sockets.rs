//! Listening sockets and shared memory of a process and its descendants, as shown in /proc; knows no configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{read_dir, read_link, read_to_string};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};

/// Way by which others can reach a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Open {
    /// Listening TCP socket.
    Tcp(SocketAddr),
    /// UDP or raw socket; it has no state that tells who may send to it.
    Datagrams(String),
    /// Listening unix socket; abstract names begin with `@`.
    Unix(String),
    /// System V memory segment, with its permissions.
    SystemV(String),
    /// File in /dev/shm, open by name.
    SharedFile(String),
}

/// Returns everything open of `root` and its descendants, with the process that holds it.
pub fn open_to_others(root: u32) -> Result<BTreeSet<(u32, Open)>> {
    let mut open = BTreeSet::new();
    for pid in family(root)? {
        let sockets = sockets_of(pid);
        for (inode, what) in listening(pid)? {
            if sockets.contains(&inode) {
                open.insert((pid, what));
            }
        }
        open.extend(segments_of(pid)?.into_iter().map(|segment| (pid, segment)));
        open.extend(shared_files_of(pid).into_iter().map(|file| (pid, file)));
    }
    Ok(open)
}

/// Returns a process and all its descendants.
fn family(root: u32) -> Result<BTreeSet<u32>> {
    let mut parents = BTreeMap::new();
    for entry in read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process that has ended meanwhile has no parent to note.
        let Ok(stat) = read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parents.insert(pid, parent.context("a process without a parent")?);
    }
    let mut family = BTreeSet::from([root]);
    loop {
        let children: BTreeSet<u32> = parents.iter().filter(|(_, p)| family.contains(p)).map(|(pid, _)| *pid).collect();
        if children.is_subset(&family) {
            return Ok(family);
        }
        family.extend(children);
    }
}

fn sockets_of(pid: u32) -> BTreeSet<u64> {
    let inode = |target: String| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    files_of(pid).into_iter().filter_map(inode).collect()
}

fn shared_files_of(pid: u32) -> Vec<Open> {
    let named = files_of(pid).into_iter().filter(|file| file.starts_with("/dev/shm/") && !file.ends_with(" (deleted)"));
    named.map(Open::SharedFile).collect()
}

fn files_of(pid: u32) -> Vec<String> {
    let Ok(descriptors) = read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let targets = descriptors.flatten().filter_map(|descriptor| read_link(descriptor.path()).ok());
    targets.map(|target| target.to_string_lossy().into_owned()).collect()
}

/// Returns the segments that the process has made, from /proc/sysvipc/shm (key, id, permissions, size, cpid, …).
fn segments_of(pid: u32) -> Result<Vec<Open>> {
    let Ok(table) = read_to_string("/proc/sysvipc/shm") else { return Ok(Vec::new()) };
    let mut segments = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let creator = *fields.get(4).with_context(|| format!("a line of /proc/sysvipc/shm: {line}"))?;
        if creator == pid.to_string() {
            segments.push(Open::SystemV(fields[2].to_owned()));
        }
    }
    Ok(segments)
}

/// Returns the sockets of the process's network namespace that others can send to, by inode.
fn listening(pid: u32) -> Result<Vec<(u64, Open)>> {
    const TCP_LISTEN: &str = "0A";
    let mut open = Vec::new();
    let table = |name: &str| read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    for name in ["tcp", "tcp6"] {
        for line in table(name).lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == TCP_LISTEN {
                open.push((fields[9].parse()?, Open::Tcp(address(fields[1])?)));
            }
        }
    }
    for name in ["udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6"] {
        for line in table(name).lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            open.push((fields[9].parse()?, Open::Datagrams(format!("{name} {}", fields[1]))));
        }
    }
    for line in table("packet").lines().skip(1) {
        let inode = line.split_whitespace().nth(8).context("a packet socket without an inode")?;
        open.push((inode.parse()?, Open::Datagrams("packet".to_owned())));
    }
    for line in table("unix").lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Num RefCount Protocol Flags Type St Inode Path. Flag __SO_ACCEPTCON marks a listening socket; a named socket
        // that is no stream (type 1) can be sent to without listening.
        let listens = u32::from_str_radix(fields[3], 16)? & 0x1_0000 != 0;
        let addressed = fields.len() > 7 && fields[4] != "0001";
        if listens || addressed {
            open.push((fields[6].parse()?, Open::Unix(fields.get(7).copied().unwrap_or_default().to_owned())));
        }
    }
    Ok(open)
}

/// Parses an address of /proc/net/tcp: hexadecimal words in the machine's byte order.
fn address(text: &str) -> Result<SocketAddr> {
    let (ip, port) = text.split_once(':').context("an address without a port")?;
    let mut bytes = Vec::new();
    for word in 0..ip.len() / 8 {
        bytes.extend_from_slice(&u32::from_str_radix(&ip[word * 8..word * 8 + 8], 16)?.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice())?)),
    };
    Ok(SocketAddr::new(ip, u16::from_str_radix(port, 16)?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};

    use super::*;

    #[test]
    fn whatever_listens_is_found() {
        let (tcp, udp) = (TcpListener::bind("[::1]:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let name = format!("baton-tests-{}", std::process::id());
        let _unix = UnixListener::bind_addr(&UnixAddress::from_abstract_name(&name).unwrap()).unwrap();
        let open = open_to_others(std::process::id()).unwrap();
        let found: BTreeSet<Open> = open.into_iter().map(|(_, open)| open).collect();
        let port = udp.local_addr().unwrap().port();
        assert!(found.contains(&Open::Tcp(tcp.local_addr().unwrap())), "{found:?}");
        assert!(found.contains(&Open::Datagrams(format!("udp 0100007F:{port:04X}"))), "{found:?}");
        assert!(found.contains(&Open::Unix(format!("@{name}"))), "{found:?}");
    }
}
