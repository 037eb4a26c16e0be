//! The addresses that this host has itself.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// Those of its interfaces now. A node that has confined itself cannot ask.
///
/// # Errors
/// The system does not say.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    Ok(addresses.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_one_of_them_and_others_have_theirs() {
        let addresses = addresses().expect("the system says");
        let has = |text: &str| addresses.contains(&text.parse::<IpAddr>().expect("an address"));
        assert!(has("127.0.0.1") && !has("192.0.2.255"), "{addresses:?}");
    }
}
