//! Networks as a trie of the longest prefix needs them. No I/O.

use std::collections::HashMap;

use crate::config::ignore::Network;

/// Every network with the bits of all that hold it: the trie gives the longest prefix alone. One for all of IPv4 is always there, so that no
/// prefix of IPv6 is found for a mapped address.
pub(super) fn whole(networks: &[(Network, u64)]) -> HashMap<Network, u64> {
    let of = |network: Network| networks.iter().filter(|(other, _)| other.holds(network)).fold(0, |bits, (_, bit)| bits | bit);
    networks.iter().map(|(network, _)| *network).chain([Network::IPV4]).map(|network| (network, of(network))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<(Network, u64)> {
        texts.iter().enumerate().map(|(index, text)| (text.parse().unwrap(), 1 << index)).collect()
    }

    /// As the kernel's trie finds it.
    fn found(whole: &HashMap<Network, u64>, address: [u8; 16]) -> u64 {
        let bits = u128::from_be_bytes(address);
        let begins = |network: &Network| {
            let (bytes, len) = network.key();
            (u128::from_be_bytes(bytes) ^ bits).leading_zeros() >= len
        };
        whole.iter().filter(|(network, _)| begins(network)).max_by_key(|(network, _)| network.key().1).map_or(0, |(_, bits)| *bits)
    }

    #[test]
    fn a_longer_prefix_has_what_the_shorter_ones_have() {
        let whole = whole(&networks(&["10.0.0.0/8", "10.1.0.0/16", "::/0", "10.1.0.0/16"]));
        let at = |text: &str| found(&whole, text.parse::<Network>().unwrap().key().0);
        assert_eq!([at("10.1.2.3"), at("10.2.3.4"), at("192.0.2.1"), at("2001:db8::1"), at("::ffff:10.1.1.1")], [11, 1, 0, 4, 11]);
    }

    proptest! {
        #[test]
        fn the_longest_prefix_says_what_each_network_says(
            texts in proptest::collection::vec(prop_oneof!["10\\.[0-3]\\.0\\.0/1[6-8]", "10\\.0\\.0\\.0/[89]", "fd0[0-3]::/1[26]", Just("::/0".to_owned()), Just("0.0.0.0/0".to_owned())], 0..8),
            address in prop_oneof!["10\\.[0-4]\\.0\\.1", "fd0[0-4]::1", "192\\.0\\.2\\.1"],
        ) {
            let networks: Vec<(Network, u64)> =
                texts.iter().filter_map(|text| text.parse().ok()).enumerate().map(|(index, network)| (network, 1 << index)).collect();
            let address: Network = address.parse().unwrap();
            let expected = networks.iter().filter(|(network, _)| network.holds(address)).fold(0, |bits, (_, bit)| bits | bit);
            prop_assert_eq!(found(&whole(&networks), address.key().0), expected);
        }
    }
}
