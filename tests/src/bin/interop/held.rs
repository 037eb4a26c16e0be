//! Holding another product to a conformance suite: where it differs is listed, with the reason, beside the dialogues.

use std::fs;
use std::path::Path;

use tests::dialogue::{Server, run, script};
use tests::wait::Trouble;

/// Holds the server to all dialogues that ask for nothing of ours. `list` names the file of its differences.
pub async fn to_dialogues(server: &mut dyn Server, list: &str) -> Result<(), Trouble> {
    let folder = server.protocol().folder();
    let (listed, messages) = (differences(&folder.join(list))?, script::messages(&folder)?);
    let mut wrong = Vec::new();
    for dialogue in &script::dialogues(&folder)? {
        let known = listed.iter().find(|known| known.title == dialogue.title);
        match (run::run(server, dialogue, &messages).await?, known) {
            (None, None) | (Some(Ok(())), None) => {}
            (Some(Err(difference)), Some(known)) if known.came == difference.came => {}
            (Some(Err(difference)), _) => wrong.push(format!("not listed so: {difference}")),
            (None | Some(Ok(())), Some(known)) => {
                wrong.push(format!("listed and no difference: {}", known.title))
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// A difference that is known.
struct Known {
    title: String,
    came: String,
}

/// The list: `== TITLE`, `came: WHAT`, and `because: WHY` for people.
fn differences(file: &Path) -> Result<Vec<Known>, Trouble> {
    let text = fs::read_to_string(file)?;
    let mut known: Vec<Known> = Vec::new();
    let mut reasons = 0;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("== ") {
            known.push(Known { title: title.to_owned(), came: String::new() });
        } else if let (Some(came), Some(last)) = (line.strip_prefix("came: "), known.last_mut()) {
            came.clone_into(&mut last.came);
        }
        reasons += usize::from(line.starts_with("because: "));
    }
    if reasons == known.len() { Ok(known) } else { Err("each difference has its reason".into()) }
}
