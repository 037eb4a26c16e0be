//! Whether every kind of unit that is said to be played here was.

use std::collections::BTreeSet;

use ::tests::kinds::{Played, all};

/// Rounds of kills in which each of them comes: a shorter storm may lack some, and so may the safety stores behind one on a bad
/// line.
const ROUNDS_MIN: usize = 20;

/// What is wrong about the kinds that the nodes have told each other in a storm of so many rounds of kills.
pub fn faults(told: &BTreeSet<&'static str>, rounds: usize) -> Vec<String> {
    let wrong = all().filter_map(|kind| match (kind.storm, told.contains(kind.name)) {
        (Played::By(what), false) if rounds >= ROUNDS_MIN => {
            Some(format!("no unit of the kind {} was told, which is played by {what}", kind.name))
        }
        (Played::Not(why), true) => Some(format!("a unit of the kind {} was told, though {why}", kind.name)),
        _ => None,
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use ::tests::kinds::Kind;

    use super::*;

    #[test]
    fn a_kind_that_is_not_told_and_one_that_should_not_be_are_found() {
        let played = |kind: &&Kind| matches!(kind.storm, Played::By(_));
        let right: BTreeSet<_> = all().filter(played).map(|kind| kind.name).collect();
        assert_eq!(faults(&right, ROUNDS_MIN), Vec::<String>::new());
        let mut less = right.clone();
        less.remove("Revised");
        assert_eq!(faults(&less, ROUNDS_MIN).len(), 1);
        assert_eq!(faults(&less, ROUNDS_MIN - 1).len(), 0, "it was too short");
        let unplayed = all().find(|kind| !played(kind));
        let more: BTreeSet<_> = right.iter().copied().chain(unplayed.map(|kind| kind.name)).collect();
        assert_eq!(faults(&more, 1).len(), usize::from(unplayed.is_some()));
    }
}
