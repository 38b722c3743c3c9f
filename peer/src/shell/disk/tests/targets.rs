//! Folders that cannot take a file, and files that are very large.

use super::*;

const HOSTILE: [&str; 6] = ["../up", "/abs", "a/../../up", ".bashrc", "C:\\x", "x\0y"];

#[test]
fn t02_hostile_names_for_a_target_that_is_missing_or_a_file_create_nothing() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing");
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let mut disk = Disk::default();
    for name in HOSTILE {
        for target in [&missing, &file] {
            let answer = disk.ask(create(1, target, name, 3));
            assert!(
                matches!(answer, DiskAnswer::BadName(_) | DiskAnswer::Failed(_)),
                "{name:?} in {target:?}: {answer:?}"
            );
        }
    }
    for (target, words) in [(&missing, "create it first"), (&file, "is a file")] {
        let reason = disk.failure(create(1, target, "x", 3));
        assert!(reason.contains(words), "{reason}");
    }
    assert_eq!(names_in(folder.path()), ["file"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert!(!folder.path().with_file_name("up").exists());
}

#[test]
fn t12_a_folder_without_permission_is_named_and_keeps_what_it_has() {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("locked");
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, Permissions::from_mode(0o500)).unwrap();
    if File::create(target.join("probe")).is_ok() {
        println!("skipped: no permission can be taken away from this user");
        return;
    }
    let mut disk = Disk::default();
    let reason = disk.failure(create(1, &target, "x", 3));
    assert!(reason.contains("permission denied"), "{reason}");
    fs::set_permissions(&target, Permissions::from_mode(0o700)).unwrap();
    assert_eq!(names_in(&target), [""; 0]);
    // Permission that is taken away while the file arrives.
    assert_eq!(disk.ask(create(2, &target, "x", 3)), DiskAnswer::Created);
    fs::set_permissions(&target, Permissions::from_mode(0o500)).unwrap();
    disk.ask(write(2, 0, b"abc"));
    let reason = disk.failure(finish(2));
    assert!(reason.contains("permission denied"), "{reason}");
    fs::set_permissions(&target, Permissions::from_mode(0o700)).unwrap();
    assert!(!target.join("x").exists());
}

#[test]
fn t11_leaves_around_two_and_four_gibibytes_are_read_from_their_place() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("large");
    let size = (1u64 << 32) + 5;
    let file = File::create(&path).unwrap();
    // Mostly a hole: it takes no room.
    file.set_len(size).unwrap();
    let places = [(1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32];
    for (mark, at) in (1u8..).zip(places) {
        file.write_all_at(&[mark], at).unwrap();
    }
    let mut disk = Disk::default();
    let DiskAnswer::Opened { size: opened, .. } = disk.ask(open(1, &path)) else {
        panic!("not opened");
    };
    assert_eq!(opened, size);
    for (mark, at) in (1u8..).zip(places) {
        let leaf = LEAF_LEN as u64;
        let DiskAnswer::Leaf { bytes, .. } = disk.ask(read(1, at / leaf)) else {
            panic!("no leaf");
        };
        assert_eq!(bytes[(at % leaf) as usize], mark, "at {at}");
        let expected = if at == 1 << 32 { 5 } else { LEAF_LEN };
        assert_eq!(bytes.len(), expected);
    }
}
