//! A flow through a TURN server (RFC 8656): a client with an allocation and a channel, and a peer with
//! neither.

use std::net::{SocketAddr, UdpSocket};

use stun_types::attribute::{AttributeType, RawAttribute, XorSocketAddr};
use stun_types::message::{
    Message, MessageClass, MessageType, MessageWrite, MessageWriteExt, MessageWriteVec, Method,
    TransactionId,
};

use super::{Flow, PACKET_LEN, socket};
use crate::bench::Failure;

const ALLOCATE: Method = Method::new(3);
const CHANNEL_BIND: Method = Method::new(9);
const CHANNEL_NUMBER: AttributeType = AttributeType::new(0x0c);
const LIFETIME: AttributeType = AttributeType::new(0x0d);
const XOR_PEER_ADDRESS: AttributeType = AttributeType::new(0x12);
const XOR_RELAYED_ADDRESS: AttributeType = AttributeType::new(0x16);
const REQUESTED_TRANSPORT: AttributeType = AttributeType::new(0x19);
/// The first number that a channel may have.
const CHANNEL: [u8; 2] = [0x40, 0];
/// UDP's number, and three bytes that are reserved.
const UDP: [u8; 4] = [17, 0, 0, 0];
/// Length of a channel's number and of the length of its data.
const HEADER_LEN: usize = 4;
/// Seconds for which the client asks for an allocation: as long as the server is told to give it.
const LIFETIME_SECONDS: u32 = 86_400;
/// What coturn is told: to relay for anybody and to this machine, and that nothing ends before the bench does.
pub(super) const OPTIONS: [&str; 10] = [
    "--no-auth",
    "--allow-loopback-peers",
    "--relay-ip",
    "127.0.0.1",
    "--max-allocate-lifetime",
    "86400",
    "--channel-lifetime",
    "86400",
    "--permission-lifetime",
    "86400",
];

/// Makes it, from the client to the peer, or back.
pub(super) fn flow(server: SocketAddr, is_back: bool) -> Result<Flow, Failure> {
    let (client, peer) = (socket()?, socket()?);
    let allocate = TransactionId::generate();
    let lifetime = LIFETIME_SECONDS.to_be_bytes();
    let attributes = [
        RawAttribute::new(REQUESTED_TRANSPORT, &UDP),
        RawAttribute::new(LIFETIME, &lifetime),
    ];
    let answer = ask(&client, server, (ALLOCATE, allocate), &attributes)?;
    let relayed = relayed_address(&answer, allocate)?;
    bind(&client, server, peer.local_addr()?)?;
    let len = u16::try_from(PACKET_LEN).expect("it is shorter than a datagram");
    let flow = if is_back {
        Flow::new([peer, client], relayed, Vec::new(), HEADER_LEN)
    } else {
        let header = [CHANNEL, len.to_be_bytes()].concat();
        Flow::new([client, peer], server, header, 0)
    };
    Ok(flow?)
}

/// Binds the channel to a peer's address.
fn bind(client: &UdpSocket, server: SocketAddr, peer: SocketAddr) -> Result<(), Failure> {
    let transaction = TransactionId::generate();
    let number = [CHANNEL, [0; 2]].concat();
    let address = XorSocketAddr::new(peer, transaction);
    let attributes = [
        RawAttribute::new(CHANNEL_NUMBER, &number),
        address.to_raw(XOR_PEER_ADDRESS),
    ];
    ask(client, server, (CHANNEL_BIND, transaction), &attributes)?;
    Ok(())
}

/// Asks, and returns the answer if that is a success.
fn ask(
    client: &UdpSocket,
    server: SocketAddr,
    (method, transaction): (Method, TransactionId),
    attributes: &[RawAttribute<'_>],
) -> Result<Vec<u8>, Failure> {
    let request = MessageType::from_class_method(MessageClass::Request, method);
    let mut message = Message::builder(request, transaction, MessageWriteVec::new());
    for attribute in attributes {
        let added = message.add_attribute(attribute);
        added.map_err(|error| Failure::Wrong(format!("no request: {error}")))?;
    }
    client.send_to(&message.finish(), server)?;
    let mut answer = vec![0; 1500];
    let len = client.recv(&mut answer)?;
    answer.truncate(len);
    let is_success = Message::from_bytes(&answer).is_ok_and(|answer| {
        answer.has_class(MessageClass::Success) && answer.transaction_id() == transaction
    });
    if is_success {
        Ok(answer)
    } else {
        Err(Failure::Wrong(format!("{method} was refused: {answer:?}")))
    }
}

fn relayed_address(answer: &[u8], transaction: TransactionId) -> Result<SocketAddr, Failure> {
    let answer = Message::from_bytes(answer).ok();
    let raw = answer
        .as_ref()
        .and_then(|it| it.raw_attribute(XOR_RELAYED_ADDRESS));
    let address = raw.and_then(|raw| XorSocketAddr::from_raw(&raw).ok());
    let address = address.map(|it| it.addr(transaction));
    address.ok_or_else(|| Failure::Wrong("an allocation has no address".to_owned()))
}
