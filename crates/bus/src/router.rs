//! Which mailboxes a channel's messages enter.
//!
//! Exact names are in a table, patterns in a trie whose branches are tried from the most to the least specific, so that
//! the first pattern of a group that is found is the one that counts.

use std::collections::{HashMap, HashSet};
use std::fmt;

const ONE: &str = "*";
const REST: &str = ">";

/// Tokens of a pattern at most: matching descends one level for each.
const DEPTH: usize = 256;

/// Why a pattern cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// It has a token without characters.
    EmptyToken,
    /// A wildcard is only a part of a token.
    PartialWildcard,
    /// `>` stands for all that follows, so nothing may follow it.
    RestNotLast,
    /// It has too many tokens.
    TooDeep,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyToken => "a pattern has no empty tokens: remove the extra dot",
            Self::PartialWildcard => "`*` and `>` stand for whole tokens: put dots around them",
            Self::RestNotLast => "`>` matches all that follows: it must be the last token",
            Self::TooDeep => "a pattern has 256 tokens at most",
        })
    }
}

impl std::error::Error for PatternError {}

/// Checks a pattern: tokens separated by dots, of which `*` stands for any one and a last `>` for one or more.
pub fn check_pattern(pattern: &str) -> Result<(), PatternError> {
    let mut rest_seen = false;
    for token in pattern.split('.') {
        if rest_seen {
            return Err(PatternError::RestNotLast);
        }
        if token.is_empty() {
            return Err(PatternError::EmptyToken);
        }
        if token.len() > 1 && token.contains(['*', '>']) {
            return Err(PatternError::PartialWildcard);
        }
        rest_seen = token == REST;
    }
    if pattern.split('.').count() > DEPTH { Err(PatternError::TooDeep) } else { Ok(()) }
}

#[derive(Debug)]
struct Target<M> {
    id: u64,
    group: Option<Box<str>>,
    value: M,
}

#[derive(Debug)]
struct Node<M> {
    literal: HashMap<Box<str>, Node<M>>,
    one: Option<Box<Node<M>>>,
    /// Of the pattern that ends here.
    targets: Vec<Target<M>>,
    /// Of the pattern that ends here with `>`.
    rest: Vec<Target<M>>,
}

impl<M> Default for Node<M> {
    fn default() -> Self {
        Self { literal: HashMap::new(), one: None, targets: Vec::new(), rest: Vec::new() }
    }
}

impl<M> Node<M> {
    fn is_empty(&self) -> bool {
        self.literal.is_empty()
            && self.one.is_none()
            && self.targets.is_empty()
            && self.rest.is_empty()
    }

    /// The targets of a pattern, which are made if there are none.
    fn entry(&mut self, pattern: &str) -> &mut Vec<Target<M>> {
        let mut node = self;
        for token in pattern.split('.') {
            node = match token {
                REST => return &mut node.rest,
                ONE => node.one.get_or_insert_default(),
                literal => node.literal.entry(literal.into()).or_default(),
            };
        }
        &mut node.targets
    }

    /// Removes a target, and the branches that are empty without it.
    fn remove<'p>(&mut self, mut tokens: impl Iterator<Item = &'p str>, id: u64) -> Option<M> {
        match tokens.next() {
            None => take(&mut self.targets, id),
            Some(REST) => take(&mut self.rest, id),
            Some(ONE) => {
                let removed = self.one.as_mut()?.remove(tokens, id);
                self.one.take_if(|node| node.is_empty());
                removed
            }
            Some(literal) => {
                let node = self.literal.get_mut(literal)?;
                let removed = node.remove(tokens, id);
                if node.is_empty() {
                    self.literal.remove(literal);
                }
                removed
            }
        }
    }

    /// Finds the targets of all patterns below, most specific pattern first.
    fn find<'a>(&'a self, tokens: &[&str], found: &mut Found<'a, M>, wildcards: bool) {
        let Some((first, others)) = tokens.split_first() else {
            return found.add(&self.targets);
        };
        if let Some(node) = self.literal.get(*first) {
            node.find(others, found, true);
        }
        if wildcards {
            if let Some(node) = &self.one {
                node.find(others, found, true);
            }
            found.add(&self.rest);
        }
    }
}

fn take<M>(targets: &mut Vec<Target<M>>, id: u64) -> Option<M> {
    let at = targets.iter().position(|target| target.id == id)?;
    Some(targets.remove(at).value)
}

/// What a channel has matched so far: of each group, only its first pattern.
struct Found<'a, M> {
    targets: Vec<&'a Target<M>>,
    groups: HashSet<&'a str>,
}

impl<'a, M> Found<'a, M> {
    /// Adds the targets of one pattern, none less specific than those before.
    fn add(&mut self, targets: &'a [Target<M>]) {
        let before = self.targets.len();
        let counts = |target: &&Target<M>| match &target.group {
            Some(group) => !self.groups.contains(&**group),
            None => true,
        };
        self.targets.extend(targets.iter().filter(counts));
        let added = self.targets[before..].iter();
        self.groups.extend(added.filter_map(|target| target.group.as_deref()));
    }

    fn into_values(mut self) -> Vec<M>
    where
        M: Clone,
    {
        self.targets.sort_by_key(|target| target.id);
        self.targets.dedup_by_key(|target| target.id);
        self.targets.into_iter().map(|target| target.value.clone()).collect()
    }
}

/// A table of patterns and what each leads to.
///
/// ```
/// let mut router = neuralcore_bus::Router::new();
/// router.insert("memory.*", None, 2, "any memory").unwrap();
/// router.insert("memory.write", None, 1, "writes").unwrap();
/// assert_eq!(router.matches("memory.write"), ["writes", "any memory"]);
/// assert_eq!(router.matches("memory.read"), ["any memory"]);
/// ```
#[derive(Debug)]
pub struct Router<M> {
    exact: HashMap<Box<str>, Vec<Target<M>>>,
    patterns: Node<M>,
}

impl<M> Default for Router<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> Router<M> {
    /// An empty table.
    pub fn new() -> Self {
        Self { exact: HashMap::new(), patterns: Node::default() }
    }

    /// Leads a pattern to the mailbox `id`; answers what the same pattern and id led to before.
    ///
    /// Of the patterns of one group that match a channel, only the most specific counts: compared token by token, a
    /// literal is more specific than `*`, and that than `>`.
    pub fn insert(
        &mut self,
        pattern: &str,
        group: Option<&str>,
        id: u64,
        value: M,
    ) -> Result<Option<M>, PatternError> {
        check_pattern(pattern)?;
        let targets = match self.exact.get_mut(pattern) {
            Some(targets) => targets,
            None if is_exact(pattern) => self.exact.entry(pattern.into()).or_default(),
            None => self.patterns.entry(pattern),
        };
        let old = take(targets, id);
        targets.push(Target { id, group: group.map(Into::into), value });
        Ok(old)
    }

    /// Undoes an insertion; answers what it led to.
    pub fn remove(&mut self, pattern: &str, id: u64) -> Option<M> {
        check_pattern(pattern).ok()?;
        if !is_exact(pattern) {
            return self.patterns.remove(pattern.split('.'), id);
        }
        let targets = self.exact.get_mut(pattern)?;
        let removed = take(targets, id);
        if targets.is_empty() {
            self.exact.remove(pattern);
        }
        removed
    }

    /// What a message on this channel leads to, each mailbox once and in ascending order of their ids.
    ///
    /// A leading wildcard does not match a channel whose first token begins with `_`.
    pub fn matches(&self, channel: &str) -> Vec<M>
    where
        M: Clone,
    {
        let mut found = Found { targets: Vec::new(), groups: HashSet::new() };
        if let Some(targets) = self.exact.get(channel) {
            found.add(targets);
        }
        if !self.patterns.is_empty() {
            let tokens: Vec<_> = channel.split('.').collect();
            self.patterns.find(&tokens, &mut found, !channel.starts_with('_'));
        }
        found.into_values()
    }

    /// Whether it has no patterns.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty()
    }
}

fn is_exact(pattern: &str) -> bool {
    !pattern.split('.').any(|token| token == ONE || token == REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(patterns: &[(&str, Option<&str>, u64)]) -> Router<u64> {
        let mut router = Router::new();
        for &(pattern, group, id) in patterns {
            assert_eq!(router.insert(pattern, group, id, id), Ok(None));
        }
        router
    }

    #[test]
    fn one_token_and_the_rest() {
        let router =
            router(&[("a.b", None, 1), ("a.*", None, 2), ("a.>", None, 3), (">", None, 4)]);
        assert_eq!(router.matches("a.b"), [1, 2, 3, 4]);
        assert_eq!(router.matches("a.c"), [2, 3, 4]);
        assert_eq!(router.matches("a.b.c"), [3, 4]);
        assert_eq!(router.matches("a"), [4]);
        assert_eq!(router.matches("b.a"), [4]);
    }

    #[test]
    fn a_wildcard_in_the_middle() {
        let router = router(&[("a.*.c", None, 1), ("*.b.>", None, 2)]);
        assert_eq!(router.matches("a.b.c"), [1, 2]);
        assert_eq!(router.matches("a.x.c"), [1]);
        assert_eq!(router.matches("x.b"), [0u64; 0]);
    }

    #[test]
    fn a_leading_wildcard_does_not_match_reserved_channels() {
        let patterns = [
            ("*.a", None, 1),
            (">", None, 2),
            ("_dlq.>", None, 3),
            ("_dlq.*", None, 4),
            ("x.*", None, 5),
        ];
        let router = router(&patterns);
        assert_eq!(router.matches("_dlq.a"), [3, 4]);
        assert_eq!(router.matches("x._a"), [2, 5]);
    }

    #[test]
    fn of_one_group_the_most_specific_pattern_counts() {
        let g = Some("g");
        let router = router(&[
            ("a.>", g, 1),
            ("a.*.c", g, 2),
            ("a.b.>", g, 3),
            ("a.b.c", g, 4),
            (">", Some("h"), 5),
            ("a.>", None, 6),
        ]);
        assert_eq!(router.matches("a.b.c"), [4, 5, 6]);
        assert_eq!(router.matches("a.b.x"), [3, 5, 6]);
        assert_eq!(router.matches("a.x.c"), [2, 5, 6]);
        assert_eq!(router.matches("a.x"), [1, 5, 6]);
    }

    #[test]
    fn members_of_a_group_on_one_pattern_all_count() {
        let router = router(&[("a", Some("g"), 2), ("a", Some("g"), 1), ("*", Some("g"), 3)]);
        assert_eq!(router.matches("a"), [1, 2]);
    }

    #[test]
    fn a_mailbox_is_matched_once() {
        let router = router(&[("a.b", None, 7), ("a.*", None, 7), (">", None, 7)]);
        assert_eq!(router.matches("a.b"), [7]);
    }

    #[test]
    fn removal_undoes_insertion_and_leaves_nothing() {
        let mut router =
            router(&[("a.*.>", None, 1), ("a.b", None, 1), ("a.*", None, 1), ("a.*", None, 2)]);
        assert_eq!(router.remove("a.*", 3), None);
        assert_eq!(router.remove("x.*", 1), None);
        assert_eq!(router.remove("a.*", 1), Some(1));
        assert_eq!(router.matches("a.b"), [1, 2]);
        assert_eq!(router.remove("a.b", 1), Some(1));
        assert_eq!(router.remove("a.*", 2), Some(2));
        assert_eq!(router.matches("a.b.c"), [1]);
        assert_eq!(router.remove("a.*.>", 1), Some(1));
        assert!(router.is_empty());
    }

    #[test]
    fn a_second_insertion_replaces_the_first() {
        let mut router = Router::new();
        assert_eq!(router.insert("a", None, 1, "old"), Ok(None));
        assert_eq!(router.insert("a", Some("g"), 1, "new"), Ok(Some("old")));
        assert_eq!(router.matches("a"), ["new"]);
    }

    #[test]
    fn patterns_that_could_mean_two_things_are_refused() {
        use PatternError::*;
        let cases = [
            ("", EmptyToken),
            ("a..b", EmptyToken),
            ("a.", EmptyToken),
            ("a.b*", PartialWildcard),
            ("**", PartialWildcard),
            (">.a", RestNotLast),
            ("a.>.>", RestNotLast),
            ("a.>.", RestNotLast),
        ];
        for (pattern, error) in cases {
            assert_eq!(Router::new().insert(pattern, None, 1, ()), Err(error), "{pattern}");
        }
        let deep = ["a"; 257].join(".");
        assert_eq!(Router::new().insert(&deep, None, 1, ()), Err(TooDeep));
        assert_eq!(Router::new().insert(&deep[2..], None, 1, ()), Ok(None));
    }

    #[test]
    fn what_is_no_pattern_removes_none() {
        let mut router = Router::new();
        assert_eq!(router.insert("a.>", None, 1, ()), Ok(None));
        assert_eq!(router.remove("a.>.b", 1), None);
        assert_eq!(router.matches("a.b"), [()]);
    }
}
