//! What has changed between two texts, by lines: the longest common subsequence, where it can be had cheaply.

/// Lines of the one times lines of the other that are compared one by one, after what begins and ends alike.
const PAIRS_MAX: usize = 4 << 20;

/// One line of both texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// In both.
    Same(&'a str),
    /// In the old one.
    Old(&'a str),
    /// In the new one.
    New(&'a str),
}

/// The lines of both, in order; what was replaced comes before what replaces it. Blanks at a line's end do not count.
/// Between texts that differ in too many lines, all of those are given as replaced.
pub fn lines<'a>(old: &'a str, new: &'a str) -> Vec<Change<'a>> {
    let split = |text: &'a str| text.lines().map(str::trim_end).collect::<Vec<_>>();
    let (old, new) = (split(old), split(new));
    let begin = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old_rest, new_rest) = (&old[begin..], &new[begin..]);
    let end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old_middle, same_end) = old_rest.split_at(old_rest.len() - end);
    let new_middle = &new_rest[..new_rest.len() - end];
    let mut changes: Vec<_> = old[..begin].iter().copied().map(Change::Same).collect();
    match old_middle.len().saturating_mul(new_middle.len()) <= PAIRS_MAX {
        true => changes.extend(compared(old_middle, new_middle)),
        false => {
            changes.extend(old_middle.iter().copied().map(Change::Old));
            changes.extend(new_middle.iter().copied().map(Change::New));
        }
    }
    changes.extend(same_end.iter().copied().map(Change::Same));
    changes
}

fn compared<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Change<'a>> {
    // The length of the longest common subsequence of what is behind each pair of places.
    let width = new.len() + 1;
    let mut behind = vec![0_u32; (old.len() + 1) * width];
    for o in (0..old.len()).rev() {
        for n in (0..new.len()).rev() {
            behind[o * width + n] = match old[o] == new[n] {
                true => behind[(o + 1) * width + n + 1] + 1,
                false => behind[(o + 1) * width + n].max(behind[o * width + n + 1]),
            };
        }
    }
    let (mut o, mut n, mut changes) = (0, 0, Vec::new());
    while o < old.len() || n < new.len() {
        match (old.get(o), new.get(n)) {
            (Some(was), Some(is)) if was == is => {
                changes.push(Change::Same(was));
                (o, n) = (o + 1, n + 1);
            }
            (Some(was), is) if is.is_none() || behind[(o + 1) * width + n] >= behind[o * width + n + 1] => {
                changes.push(Change::Old(was));
                o += 1;
            }
            (_, Some(is)) => {
                changes.push(Change::New(is));
                n += 1;
            }
            (_, None) => break,
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(old: &str, new: &str) -> String {
        let line = |change: Change<'_>| match change {
            Change::Same(line) => format!(" {line}"),
            Change::Old(line) => format!("-{line}"),
            Change::New(line) => format!("+{line}"),
        };
        lines(old, new).into_iter().map(line).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn what_is_common_stays() {
        for (old, new, expected) in [
            ("", "", ""),
            ("a\nb", "a\nb", " a| b"),
            ("a\nb\nc", "a\nx\nc", " a|-b|+x| c"),
            ("a\nb\nc\nd", "b\nc\nd\ne", "-a| b| c| d|+e"),
            ("a\nb", "", "-a|-b"),
            ("", "a", "+a"),
            ("x\na\ny\nb\nz", "a\nb", "-x| a|-y| b|-z"),
            ("a  \nb", "a\nb\t", " a| b"),
        ] {
            assert_eq!(shown(old, new), expected, "{old:?} {new:?}");
        }
    }

    #[test]
    fn long_texts_are_compared_in_bounded_work() {
        let text = |word: &str| (0..20_000).map(|n| format!("{word}{n}\n")).collect::<String>();
        let changes =
            lines(&format!("top\n{}end", text("a")), &format!("top\n{}end", text("b")).clone()).len();
        assert_eq!(changes, 40_002);
    }
}
