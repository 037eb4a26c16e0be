//! Holding another product to a conformance suite: where it differs is listed, with the reason, beside the dialogues.

use tests::dialogue::differences::{Verdict, differences, judge};
use tests::dialogue::{Server, run, script};
use tests::wait::Trouble;

/// Holds the server to all dialogues that ask for nothing of ours, and prints where it differs and why. `list` names the
/// file that says so.
pub async fn to_dialogues(server: &mut dyn Server, list: &str) -> Result<(), Trouble> {
    let folder = server.protocol().folder();
    let (listed, messages) = (differences(&folder.join(list))?, script::messages(&folder)?);
    let mut wrong = Vec::new();
    for dialogue in &script::dialogues(&folder)? {
        match judge(&listed, &dialogue.title, run::run(server, dialogue, &messages).await?) {
            Verdict::Held | Verdict::LeftOut => {}
            Verdict::Explained(known) => println!("differs   {}: {}", known.title, known.because),
            Verdict::Differs(difference) => wrong.push(format!("not listed so: {difference}")),
            Verdict::DiffersNoMore => wrong.push(format!("listed and no difference: {}", dialogue.title)),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}
