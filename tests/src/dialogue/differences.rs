//! Where a server is known to differ from dialogues, and why: a file beside them.

use std::path::Path;

use super::run::Difference;

/// A difference that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The dialogue's title.
    pub title: String,
    /// What comes in place of the step that fails.
    pub came: String,
    /// Why.
    pub because: String,
}

/// What a dialogue with a server came to, beside what is known of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It went as it should.
    Held,
    /// It differs as it is known to.
    Explained(Known),
    /// It differs, and nobody has said so and why.
    Differs(Difference),
    /// It is known to differ, and does not.
    DiffersNoMore,
    /// The server has not what it needs.
    LeftOut,
}

/// Looks a result of [`run`](super::run::run) up in the list of a server's differences.
pub fn judge(listed: &[Known], title: &str, came: Option<Result<(), Difference>>) -> Verdict {
    let known = listed.iter().find(|known| known.title == title);
    match (came, known) {
        (Some(Err(difference)), Some(known)) if known.came == difference.came => {
            Verdict::Explained(known.clone())
        }
        (Some(Err(difference)), _) => Verdict::Differs(difference),
        (None | Some(Ok(())), Some(_)) => Verdict::DiffersNoMore,
        (Some(Ok(())), None) => Verdict::Held,
        (None, None) => Verdict::LeftOut,
    }
}

/// The list in a file: `== TITLE`, `came: WHAT`, and `because: WHY` for people. Lines that begin with `#` are remarks.
///
/// # Errors
/// What cannot be read, and where.
pub fn differences(file: &Path) -> Result<Vec<Known>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut listed: Vec<Known> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = || format!("{}:{number}: write == TITLE, came: WHAT, because: WHY", file.display());
        if let Some(title) = line.strip_prefix("== ") {
            listed.push(Known { title: title.to_owned(), came: String::new(), because: String::new() });
        } else if let Some(came) = line.strip_prefix("came: ") {
            came.clone_into(&mut listed.last_mut().ok_or_else(wrong)?.came);
        } else if let Some(because) = line.strip_prefix("because: ") {
            because.clone_into(&mut listed.last_mut().ok_or_else(wrong)?.because);
        } else if !line.is_empty() && !line.starts_with('#') {
            return Err(wrong());
        }
    }
    match listed.iter().find(|known| known.because.is_empty()) {
        Some(known) => Err(format!("{}: {:?} has no reason", file.display(), known.title)),
        None => Ok(listed),
    }
}
