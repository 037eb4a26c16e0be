//! Holding another product to a conformance suite: where it differs is listed, with the reason, beside the dialogues.

use tests::dialogue::differences::{Verdict, differences, judge};
use tests::dialogue::{Server, run, script};
use tests::wait::Trouble;

/// Holds the server to all dialogues that ask for nothing of ours, and prints where it differs and why. `list` names the
/// file that says so. At least `held_min` have to go as they should: what is left out, or explained, proves nothing.
pub async fn to_dialogues(server: &mut dyn Server, list: &str, held_min: usize) -> Result<(), Trouble> {
    let folder = server.protocol().folder();
    let (listed, messages) = (differences(&folder.join(list))?, script::messages(&folder)?);
    let (mut wrong, mut held, mut explained, mut left_out) = (Vec::new(), 0, 0, 0);
    for dialogue in &script::dialogues(&folder)? {
        match judge(&listed, &dialogue.title, run::run(server, dialogue, &messages).await?) {
            Verdict::Held => held += 1,
            Verdict::LeftOut => left_out += 1,
            Verdict::Explained(known) => {
                explained += 1;
                println!("differs   {}: {}", known.title, known.because);
            }
            Verdict::Differs(difference) => wrong.push(format!("not listed so: {difference}")),
            Verdict::DiffersNoMore => wrong.push(format!("listed and no difference: {}", dialogue.title)),
        }
    }
    println!("dialogues {held} held, {explained} differ as listed, {left_out} left out");
    if held < held_min {
        wrong.push(format!("{held} dialogues went as they should, and {held_min} have to"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}
