//! Every kind of unit, and by what the simulation and the storm play it. A kind without a row does not compile: its arm
//! below needs one to name. Whether what the rows say is so, both programs find out.

use std::collections::BTreeSet;

use shared::lane;
use shared::store::{Store, StoreError};
use shared::unit::{ToBig, ToEdge, decode};

use crate::process::Node;

/// Whether a program makes the nodes tell each other units of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Played {
    /// It does, by this.
    By(&'static str),
    /// It does not, and why.
    Not(&'static str),
}

/// A kind of unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name in `shared::unit`.
    pub name: &'static str,
    /// What plays it in the simulation (`sim`): an event of a schedule.
    pub sim: Played,
    /// What plays it in the storm: one of those who act there.
    pub storm: Played,
}

const fn played(name: &'static str, sim: &'static str, storm: Played) -> Kind {
    Kind { name, sim: Played::By(sim), storm }
}

/// What edges tell.
pub static TO_BIG: [Kind; 10] = [
    played("Inbound", "accept", Played::By("strangers, and the travellers who submit")),
    played("Outcome", "deliver", Played::By("the MTA outside, which takes mail or defers it")),
    played("PopAct", "collect", Played::By("the traveller who collects")),
    played("WindowClosed", "road", Played::By("the clerk's guests, who come home or are removed")),
    played("DirectoryCompared", "tell_directory", Played::By("each connection")),
    played("Inventory", "hold_alike", Played::By("the count, which has both nodes' holdings compared")),
    played("Revised", "revise", Played::By("authors with second thoughts")),
    played("WindowUsed", "collect", Played::By("the traveller's first login")),
    played("Guessing", "guess", Played::Not("nobody guesses there, or its one traveller would be kept out")),
    played("AggregateReport", "report", Played::Not("it is told when a day of UTC is over, by the clock")),
];

/// What bigs tell.
pub static TO_EDGE: [Kind; 16] = [
    played("Introduction", "begin", Played::By("the pairing")),
    played("Outbound", "send", Played::By("desks")),
    played("Copy", "send_inside", Played::By("desks that write to the traveller")),
    played("Address", "people", Played::By("the clerk")),
    played("AddressGone", "people", Played::By("the clerk")),
    played("Window", "road", Played::By("the traveller, who sets out")),
    played("WindowEnd", "road", Played::By("the clerk's guests, who come home or are removed")),
    played("DirectoryBegin", "begin", Played::By("the pairing")),
    played("DirectoryComplete", "begin", Played::By("the pairing")),
    played("Unsettled", "put_back", Played::By("the pairing")),
    played("DirectoryRows", "begin", Played::By("the pairing")),
    played("DirectoryMark", "tell_directory", Played::By("each connection")),
    played("InventoryAsked", "hold_alike", Played::By("the count, which has both nodes' holdings compared")),
    played("Revise", "revise", Played::By("authors with second thoughts")),
    played("ReviseCopy", "revise", Played::By("authors with second thoughts, of what the traveller has")),
    played("CopyGone", "at_a_desk", Played::Not("the traveller deletes nothing at a desk")),
];

/// The row of what an edge tells.
pub fn to_big(unit: &ToBig) -> &'static Kind {
    // In the order of the table, all of it.
    let [
        inbound,
        outcome,
        pop_act,
        window_closed,
        directory_compared,
        inventory,
        revised,
        window_used,
        guessing,
        aggregate_report,
    ] = &TO_BIG;
    match unit {
        ToBig::Inbound(_) => inbound,
        ToBig::Outcome(_) => outcome,
        ToBig::PopAct(_) => pop_act,
        ToBig::WindowClosed { .. } => window_closed,
        ToBig::DirectoryCompared(_) => directory_compared,
        ToBig::Inventory(_) => inventory,
        ToBig::Revised(_) => revised,
        ToBig::WindowUsed { .. } => window_used,
        ToBig::Guessing { .. } => guessing,
        ToBig::AggregateReport(_) => aggregate_report,
    }
}

/// The row of what a big tells.
pub fn to_edge(unit: &ToEdge) -> &'static Kind {
    let [
        introduction,
        outbound,
        copy,
        address,
        address_gone,
        window,
        window_end,
        directory_begin,
        directory_complete,
        unsettled,
        directory_rows,
        directory_mark,
        inventory_asked,
        revise,
        revise_copy,
        copy_gone,
    ] = &TO_EDGE;
    match unit {
        ToEdge::Introduction { .. } => introduction,
        ToEdge::Outbound(_) => outbound,
        ToEdge::Copy(_) => copy,
        ToEdge::Address(_) => address,
        ToEdge::AddressGone { .. } => address_gone,
        ToEdge::Window(_) => window,
        ToEdge::WindowEnd { .. } => window_end,
        ToEdge::DirectoryBegin => directory_begin,
        ToEdge::DirectoryComplete => directory_complete,
        ToEdge::Unsettled(_) => unsettled,
        ToEdge::DirectoryRows(_) => directory_rows,
        ToEdge::DirectoryMark(_) => directory_mark,
        ToEdge::InventoryAsked { .. } => inventory_asked,
        ToEdge::Revise(_) => revise,
        ToEdge::ReviseCopy(_) => revise_copy,
        ToEdge::CopyGone { .. } => copy_gone,
    }
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Kind> {
    TO_BIG.iter().chain(&TO_EDGE)
}

/// The names of the kinds that a node has sent and its partner has applied, as far as its safety store reaches.
pub fn applied(store: &Store, by: Node) -> Result<BTreeSet<&'static str>, StoreError> {
    let (rows, mut names) = (store.read()?, BTreeSet::new());
    for lane in 0..lane::LANES_MAX {
        for unit in lane::applied(&rows, lane, usize::MAX)? {
            let kind = match by {
                Node::Big => decode(&unit.head).as_ref().map(to_edge),
                Node::Edge => decode(&unit.head).as_ref().map(to_big),
            };
            names.extend(kind.map(|kind| kind.name));
        }
    }
    Ok(names)
}
