//! A giver and a reader in a simulated network that delays, loses, freezes and kills; every seed is one history.
//!
//! The reader reads the giver's memory one-sidedly, lease or not, so only the protocol keeps foreign bytes out of it.

mod dice;
mod network;
mod router;
mod seen;
mod worker;

use self::network::Network;

const SEEDS: u64 = 160;

#[test]
fn no_token_is_computed_from_bytes_outside_a_lease_and_nothing_leaks() {
    let mut seen = seen::Seen::default();
    for seed in 0..SEEDS {
        eprintln!("seed {seed}");
        seen.add(Network::new(seed).run());
    }
    // A history in which nothing goes wrong shows nothing: all of these must have happened, and often.
    assert!(seen.joined > 500, "{seen:?}");
    assert!(seen.expired_answers > 5 && seen.repeated_releases > 20 && seen.lost_pulls > 20, "{seen:?}");
    assert!(seen.not_met > 20, "{seen:?}");
    assert!(seen.early_pulls > 50 && seen.layer_pulls > 20, "{seen:?}");
    assert!(seen.continued > 1_000 && seen.strangers > 50, "{seen:?}");
    assert!(seen.crashes > 20 && seen.retries > 100 && seen.finished > 500, "{seen:?}");
}
