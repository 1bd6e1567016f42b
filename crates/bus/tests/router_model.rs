//! A router finds what comparing every pattern with the channel finds.

#![cfg(not(loom))]

use std::collections::{BTreeMap, BTreeSet};

use neuralcore_bus::Router;
use proptest::prelude::*;
use proptest::sample::select;

type Group = Option<&'static str>;

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    group: Group,
    id: u64,
}

fn tokens(among: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(select(among), 1..5)
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let tokens = (tokens(&["a", "b", "_c", "*", "*"]), any::<bool>());
    (tokens, select(&[None, None, Some("g"), Some("h")][..]), 0..12u64).prop_map(
        |((mut tokens, rest), group, id)| {
            if rest {
                tokens.push(">");
            }
            // One group's patterns lead to different mailboxes; without a group one may have several.
            let id = group.map_or(id, |_| id + 12);
            Pattern { text: tokens.join("."), group, id }
        },
    )
}

/// How specific each token of the pattern is (lower is more), if it matches.
fn matches(pattern: &str, channel: &str) -> Option<Vec<u8>> {
    let (pattern, channel): (Vec<_>, Vec<_>) =
        (pattern.split('.').collect(), channel.split('.').collect());
    let rest = pattern.last() == Some(&">");
    let fixed = &pattern[..pattern.len() - usize::from(rest)];
    let fits = if rest { channel.len() > fixed.len() } else { channel.len() == fixed.len() };
    let equal = fixed.iter().zip(&channel).all(|(want, have)| *want == "*" || want == have);
    let reserved = channel[0].starts_with('_') && ["*", ">"].contains(&pattern[0]);
    let specificity = pattern
        .iter()
        .map(|token| ["*", ">"].iter().position(|w| w == token).map_or(0, |at| at as u8 + 1));
    (fits && equal && !reserved).then(|| specificity.collect())
}

fn naive(patterns: &BTreeMap<(String, u64), Group>, channel: &str) -> Vec<u64> {
    let found = patterns
        .iter()
        .filter_map(|((text, id), group)| Some((matches(text, channel)?, *id, *group)));
    let found: Vec<_> = found.collect();
    let best = |group: Group| found.iter().filter(|f| f.2 == group).map(|f| &f.0).min();
    let counts = |(specificity, _, group): &&(Vec<u8>, u64, Group)| {
        group.is_none() || best(*group) == Some(specificity)
    };
    found.iter().filter(counts).map(|&(_, id, _)| id).collect::<BTreeSet<_>>().into_iter().collect()
}

proptest! {
    #[test]
    fn a_router_answers_as_a_list_of_patterns(
        patterns in prop::collection::vec(pattern(), 0..40),
        removals in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        channels in prop::collection::vec(tokens(&["a", "b", "_c", "d"]), 1..20),
    ) {
        let (mut router, mut list) = (Router::new(), BTreeMap::new());
        for Pattern { text, group, id } in &patterns {
            let old = list.insert((text.clone(), *id), *group).map(|_| *id);
            prop_assert_eq!(router.insert(text, *group, *id, *id), Ok(old));
        }
        for removal in removals {
            if !patterns.is_empty() {
                let Pattern { text, id, .. } = removal.get(&patterns);
                let removed = list.remove(&(text.clone(), *id)).map(|_| *id);
                prop_assert_eq!(router.remove(text, *id), removed);
            }
        }
        prop_assert_eq!(router.is_empty(), list.is_empty());
        for channel in channels {
            let channel = channel.join(".");
            prop_assert_eq!(router.matches(&channel), naive(&list, &channel), "{}", channel);
        }
    }
}
