//! Holding another product to a conformance suite: where it differs is listed, with the reason, beside the dialogues.

use std::collections::BTreeMap;

use tests::dialogue::differences::{Verdict, differences, judge};
use tests::dialogue::script::{self, Dialogue};
use tests::dialogue::{Server, run};
use tests::wait::Trouble;

/// Holds the server to those dialogues of its protocol that `are_held`, but for what asks for something of ours, and prints
/// where it differs and why, and for which reasons how many are left out. `list` names the file that says so. At least
/// `held_min` have to go as they should: what is left out, or explained, proves nothing.
pub async fn to_dialogues(
    server: &mut dyn Server,
    list: &str,
    are_held: impl Fn(&Dialogue) -> bool,
    held_min: usize,
) -> Result<(), Trouble> {
    let folder = server.protocol().folder();
    let (listed, messages) = (differences(&folder.join(list))?, script::messages(&folder)?);
    let (mut wrong, mut held, mut explained) = (Vec::new(), 0, 0);
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    for dialogue in script::dialogues(&folder)?.iter().filter(|dialogue| are_held(dialogue)) {
        match judge(&listed, &dialogue.title, run::run(server, dialogue, &messages).await?) {
            Verdict::Held => held += 1,
            Verdict::LeftOut => *left_out.entry(dialogue.left_out_because()).or_default() += 1,
            Verdict::Explained(known) => {
                explained += 1;
                println!("differs   {}: {}", known.title, known.because);
            }
            Verdict::Differs(difference) => wrong.push(format!("not listed so: {difference}")),
            Verdict::DiffersNoMore => wrong.push(format!("listed and no difference: {}", dialogue.title)),
        }
    }
    for (reason, count) in &left_out {
        println!("left out  {count}: {reason}");
    }
    let left_out: usize = left_out.values().sum();
    println!("dialogues {held} held, {explained} differ as listed, {left_out} left out");
    if held < held_min {
        wrong.push(format!("{held} dialogues went as they should, and {held_min} have to"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}
