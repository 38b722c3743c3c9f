use super::*;

fn key(number: u8) -> DeviceKey {
    DeviceSecret::from_seed([number; 32]).public()
}

#[test]
fn a_device_is_meant_by_its_name_or_the_beginning_of_its_fingerprint() {
    let devices = || {
        let names = ["laptop", "phone", "phone"];
        (1..)
            .zip(names)
            .map(|(number, name)| (key(number), DeviceName::lossy(name)))
    };
    let meant = |which: &str| chosen(which, devices(), "is approved").map(|(key, _)| key);
    assert_eq!(meant("laptop"), Ok(key(1)));
    let fingerprint = key(2).fingerprint().to_string();
    let bare = fingerprint.trim_start_matches(FINGERPRINT_PREFIX);
    for which in [&fingerprint, &fingerprint[..13], bare, &bare[..6]] {
        assert_eq!(meant(which), Ok(key(2)), "{which}");
    }
    for (which, why) in [
        ("phone", "several"),
        ("tablet", "no device"),
        ("", "no device"),
        (&bare[..5], "no device"),
        (FINGERPRINT_PREFIX, "no device"),
    ] {
        let error = meant(which).unwrap_err().to_string();
        assert!(error.contains(why), "{which}: {error}");
    }
}

#[test]
fn a_log_is_assembled_without_what_does_not_fit() {
    let [first, recovery, thief] = [1, 2, 3].map(|number| DeviceSecret::from_seed([number; 32]));
    let genesis = Genesis {
        first_device: first.public(),
        recovery: recovery.public(),
        nonce: [0; 32],
    };
    let run = RunId::from_bytes([0; 16]);
    let clock = common::log::Clock::from_bits;
    let log = AccountLog::found(genesis, run, clock(1), &first);
    let approve = |device| AccountStatement::Approve {
        device,
        name: DeviceName::lossy("phone"),
    };
    let forged = log.write(approve(key(3)), run, clock(2), &thief);
    let genuine = log.write(approve(key(4)), run, clock(2), &first);
    let begins = log.entries().next().unwrap().clone();
    assert!(assembled(Vec::new()).is_none());
    assert!(assembled(vec![genuine.clone()]).is_none());
    let log = assembled(vec![begins, forged, genuine]).unwrap();
    assert!(!log.standing().is_approved(&key(3)));
    assert!(log.standing().is_approved(&key(4)));
    assert_eq!(missing(&log, &[]).len(), 2);
}
