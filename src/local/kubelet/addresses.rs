//! An address of its own for every pod: one network of 254 loopback addresses per kubelet.
//!
//! Every pod then listens on the same ports, as on a real network. Works where all of 127.0.0.0/8 is the loopback
//! interface: Linux, not macOS.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use rand::{Rng, RngExt as _};

/// The port by which a network is held, on its address 1: that of members, which no other program should want there.
const HELD_PORT: u16 = 9_190;

/// Networks tried. There are some 65,000; to meet a held one this often, thousands of kubelets must run.
const TRIES: usize = 64;

/// Addresses of one network. Clones share it.
#[derive(Clone, Debug)]
pub struct Addresses {
    network: Arc<Network>,
}

/// An address in use; dropping it gives it back.
#[derive(Debug)]
pub struct Address {
    ip: Ipv4Addr,
    network: Arc<Network>,
}

#[derive(Debug)]
struct Network {
    /// Held so that no other process takes the same network.
    _holder: TcpListener,
    /// The one that was given back longest ago is the next, so that who still knows an old pod's address reaches nobody
    /// rather than a new pod.
    free: Mutex<VecDeque<Ipv4Addr>>,
}

// === impl Addresses ===

impl Addresses {
    /// Takes a network that nobody has.
    pub fn claim(rng: &mut impl Rng) -> io::Result<Self> {
        let mut last = io::Error::other("no loopback network was tried");
        for _try in 0..TRIES {
            let (second, third) = (rng.random_range(1..=254), rng.random_range(0..=254));
            let address = |host| Ipv4Addr::new(127, second, third, host);
            match TcpListener::bind((address(1), HELD_PORT)) {
                Ok(holder) => {
                    let network = Network {
                        _holder: holder,
                        free: Mutex::new((2..=254).map(address).collect()),
                    };
                    return Ok(Self {
                        network: Arc::new(network),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// An address that no pod has; nothing if all are taken.
    pub fn take(&self) -> Option<Address> {
        let ip = self
            .network
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()?;
        Some(Address {
            ip,
            network: Arc::clone(&self.network),
        })
    }
}

// === impl Address ===

impl Address {
    /// The address itself.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.network
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(self.ip);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn two_kubelets_of_one_seed_have_two_networks() {
        let claim = || Addresses::claim(&mut StdRng::seed_from_u64(7)).expect("a network is free");
        let (one, two) = (claim(), claim());
        let first = |addresses: &Addresses| addresses.take().expect("nothing is taken yet").ip();
        assert_ne!(first(&one), first(&two));
    }

    #[test]
    fn an_address_rests_before_it_is_taken_again() {
        let addresses = Addresses::claim(&mut StdRng::seed_from_u64(8)).expect("a network is free");
        let first = addresses.take().expect("nothing is taken yet").ip();
        let all: Vec<Address> = std::iter::from_fn(|| addresses.take()).collect();
        assert_eq!(all.len(), 253);
        assert!(all[..252].iter().all(|address| address.ip() != first));
        assert_eq!(all[252].ip(), first);
        assert!(addresses.take().is_none());
    }
}
