//! `paths`: how the packets of this profile's links go.

use std::time::Duration;

use serde::Serialize;

use super::Place;
use super::node_handle::NodeHandle;
use crate::client::now;
use crate::failure::{Exit, Failure};
use crate::node::command::{Command, LinkView, Reply};
use crate::ui::Screen;
use crate::ui::line::{self, Rates};

/// So long the traffic is looked at, to tell how fast it is and what is lost; the help and the README say so.
const SAMPLE: Duration = Duration::from_secs(1);

/// What there is to say where nothing is linked.
const NO_LINKS: &str = "No links. One is made when there is something to send, and stays as long as 'peer chat', 'peer receive' or another program of this profile runs.";

/// A link for programs.
#[derive(Serialize)]
struct PathView<'a> {
    #[serde(flatten)]
    link: &'a LinkView,
    #[serde(flatten)]
    rates: Rates,
}

/// Shows each link: direct or relayed, addresses, round trip, loss and rates.
pub(super) fn paths(place: &Place, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "show the paths";
    let mut session = place.open(DOING)?;
    let before = links(&mut session, DOING)?;
    let began = now();
    if !before.is_empty() {
        session.pause(DOING, SAMPLE)?;
    }
    let links = links(&mut session, DOING)?.into_iter();
    let span = now() - began;
    let links = links.map(|link| {
        let rates = Rates::since(&before, &link, span);
        (link, rates)
    });
    let links: Vec<(LinkView, Rates)> = links.collect();
    for (link, rates) in &links {
        screen.data(&PathView {
            link,
            rates: *rates,
        })?;
    }
    if links.is_empty() {
        screen.note(screen.error_look.dim(NO_LINKS));
    } else {
        for row in line::links(&links, screen.look.columns(), &screen.look) {
            screen.say(row)?;
        }
    }
    session.tell_notices(screen);
    Ok(Exit::Done)
}

fn links(session: &mut NodeHandle, doing: &str) -> Result<Vec<LinkView>, Failure> {
    let Reply::Status(node) = session.call(doing, &Command::Status)? else {
        return Err(Failure::unexpected_reply(doing));
    };
    if node.account.is_none() {
        let owner = session.settings().account.as_ref();
        return Err(Failure::not_logged_in(doing, owner));
    }
    Ok(node.links)
}
