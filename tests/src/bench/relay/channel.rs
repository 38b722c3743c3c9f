//! A flow through a channel of our relay, made as peers make it: two devices log in and bind their
//! allocations, and one of them asks for an introduction.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use common::wire::channel::{AllocationId, CHANNEL_HEADER_LEN, ChannelDatagram, EndId};
use common::wire::rendezvous::{Answer, IntroductionAnswer, IntroductionRequest};

use super::{Flow, socket};
use crate::bench::Failure;
use crate::wire_client::{Target, WireClient, device, name};

const PASSWORD: &str = "a password of the bench";

/// Makes it, between two accounts of its own. The allocations stay when the devices log off, as long as
/// the channel is used.
pub(super) fn flow(target: &Target, number: usize) -> Result<Flow, Failure> {
    let server: SocketAddr = target
        .address
        .parse()
        .map_err(|_| Failure::Wrong(format!("{} is no address", target.address)))?;
    let sockets = [socket()?, socket()?];
    let [alice, bob] = [2 * number, 2 * number + 1];
    let mut client = online(target, alice, &sockets[0], server)?;
    let _other = online(target, bob, &sockets[1], server)?;
    let end = introduced(&mut client, &account(bob))?;
    let header = ChannelDatagram::Packet { end, packet: &[] }.to_bytes();
    Ok(Flow::new(sockets, server, header, CHANNEL_HEADER_LEN)?)
}

/// The account of a peer.
fn account(peer: usize) -> String {
    format!("account{peer}")
}

/// A peer's device that is in the directory, with an allocation bound to its socket.
fn online(
    target: &Target,
    peer: usize,
    socket: &UdpSocket,
    server: SocketAddr,
) -> Result<WireClient, Failure> {
    let mut client = WireClient::connect(target);
    let (account, device) = (
        account(peer),
        device(u8::try_from(peer + 1).expect("there are few")),
    );
    client.register(&account, PASSWORD);
    client.token(&account, &device, PASSWORD);
    client.announce();
    let answer = client.ask(IntroductionRequest::Allocate);
    let Answer::Introduction(IntroductionAnswer::Allocated { allocation, .. }) = answer else {
        return Err(Failure::Wrong(format!("no allocation: {answer:?}")));
    };
    bind(socket, server, allocation)?;
    Ok(client)
}

fn bind(socket: &UdpSocket, server: SocketAddr, allocation: AllocationId) -> Result<(), Failure> {
    let wrong = || Failure::Wrong("the relay did not bind an allocation".to_owned());
    let answer = ask(socket, server, ChannelDatagram::Bind(allocation))?;
    let Some(ChannelDatagram::Challenge(_, cookie)) = ChannelDatagram::parse(&answer) else {
        return Err(wrong());
    };
    let answer = ask(socket, server, ChannelDatagram::Proof(allocation, cookie))?;
    let is_bound = ChannelDatagram::parse(&answer) == Some(ChannelDatagram::Bound(allocation));
    is_bound.then_some(()).ok_or_else(wrong)
}

fn ask(
    socket: &UdpSocket,
    server: SocketAddr,
    datagram: ChannelDatagram<'_>,
) -> io::Result<Vec<u8>> {
    socket.send_to(&datagram.to_bytes(), server)?;
    let mut answer = vec![0; 100];
    let len = socket.recv(&mut answer)?;
    answer.truncate(len);
    Ok(answer)
}

/// The end of the channel to the only device of another account.
fn introduced(client: &mut WireClient, account: &str) -> Result<EndId, Failure> {
    let account = name(account);
    let answer = client.ask(IntroductionRequest::Introduce { account });
    let end =
        if let Answer::Introduction(IntroductionAnswer::Introduced { introductions }) = &answer {
            introductions.first().and_then(|it| it.end)
        } else {
            None
        };
    end.ok_or_else(|| Failure::Wrong(format!("no channel: {answer:?}")))
}
