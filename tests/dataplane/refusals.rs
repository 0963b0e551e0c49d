//! A standby whose disk is full: it answers a write with an error, and its copy says so of itself.

use super::bench::{PATIENCE, need, run, until};
use super::pair::{Pair, SOURCE, STANDBY, VOLUME_BYTES, reign};
use antipode::replication::nbd::{Copy, Nbd};
use antipode::replication::record::{RecordFile, Role};
use antipode::replication::refusals::Refusals;
use antipode::replication::resync::kept::KeptStore;
use antipode::replication::resync::{Serving, serve};
use antipode::replication::{ExportBegin, MirrorBegin, MirrorOrder, MirrorState, Replication, ReplicationError};
use antipode::workload::VolumeAt;
use quorum::id::Generation;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

const FIRST: Generation = Generation(1);

/// A pair whose standby's volume lies on a disk with room for a part of it.
struct Small {
    pair: Pair,
    disk: PathBuf,
    /// The copy's record.
    record: PathBuf,
}

impl Small {
    /// In sync, and the disk is full from now on.
    async fn full() -> Self {
        let pair = Pair::new(reign()).await;
        let record = pair.scratch.path("os.record");
        Self::filled(pair, record).await
    }

    /// The same, with the copy's record beside the volume, as it usually is.
    async fn full_beside() -> Self {
        let pair = Pair::new(reign()).await;
        let record = pair.scratch.path("small-disk/os.raw.record");
        Self::filled(pair, record).await
    }

    async fn filled(pair: Pair, record: PathBuf) -> Self {
        need("mkfs.ext4", "e2fsprogs");
        let (image, disk) = (pair.scratch.path("small-disk.img"), pair.scratch.path("small-disk"));
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        fs::create_dir(&disk).unwrap();
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        run(&["mkfs.ext4", "-q", "-F", "-O", "^has_journal", &text(&image)]);
        run(&["mount", "-o", "loop", &text(&image), &text(&disk)]);
        let small = Self { pair, disk, record };
        File::create(small.volume().path).unwrap().set_len(VOLUME_BYTES).unwrap();
        small.pair.nbd(SOURCE).adopt(reign(), FIRST).await.unwrap();
        small.standby().open_export(&small.pair.export_for(reign(), ExportBegin::Afresh)).await.unwrap();
        // Both are blank.
        let order = MirrorOrder { begin: MirrorBegin::Identical, ..small.pair.mirror_for(reign()) };
        small.pair.nbd(SOURCE).start_mirror(&order).await.unwrap();
        small.pair.until_synced().await;
        small.standby().mark_standby(reign(), FIRST).unwrap();
        small.pair.write_block(0, 0x10).await;
        // As root, into what is reserved for it, too.
        let mut filler = Command::new("dd");
        filler.args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", small.filler().display()));
        assert!(!filler.output().unwrap().status.success(), "the disk is full");
        small
    }

    fn filler(&self) -> PathBuf {
        self.disk.join("filler")
    }

    fn volume(&self) -> VolumeAt {
        VolumeAt { name: "root".into(), path: self.disk.join("os.raw") }
    }

    fn standby(&self) -> Nbd {
        Nbd::new(Copy { volume: self.volume(), record: self.record.clone(), ..self.pair.copy(STANDBY) })
    }

    fn role(&self) -> Role {
        self.standby().record().unwrap().expect("a record").role
    }

    /// A write that the standby can't take.
    async fn refused_write(&self) {
        self.pair.write_block(200, 0x20).await;
        let source = self.pair.nbd(SOURCE);
        until("the mirror has ended", async || {
            matches!(source.mirror_state(PATIENCE).await.unwrap(), MirrorState::Detached { because: Some(_) })
        })
        .await;
    }

    /// The standby's host is started anew: its runtime folder is empty.
    async fn reboot(&self) {
        self.standby().close_export(PATIENCE).await.unwrap();
        fs::remove_dir_all(self.pair.place(STANDBY).runtime).unwrap();
    }

    /// The standby's agent compares the whole copy with the source's.
    async fn resync(&self) {
        let serving = Serving {
            path: self.volume().path,
            record: RecordFile::new(self.record.clone(), &"erp".parse().unwrap(), "root"),
            refusals: Refusals::of(&self.pair.place(STANDBY).runtime, "root"),
            kept: KeptStore::new(self.pair.scratch.path("kept")),
            kept_bytes_max: u64::MAX,
            host: STANDBY.parse().unwrap(),
        };
        let (mut source, mut standby) = tokio::io::duplex(1 << 20);
        let from = SOURCE.parse().unwrap();
        let serving = tokio::spawn(async move { serve(&mut standby, &from, |_| Ok(serving.clone())).await });
        self.pair.nbd(SOURCE).resync(&self.pair.mirror_for(reign()), &mut source).await.unwrap();
        serving.await.unwrap().unwrap();
        self.pair.until_synced().await;
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.disk).status();
    }
}

#[tokio::test]
async fn a_standby_that_refused_a_write_is_none_until_it_was_compared_again() {
    let small = Small::full().await;
    assert_eq!(small.role(), Role::Standby);
    small.refused_write().await;
    // The source is lost before it can say so: the copy says it of itself.
    assert_eq!(small.role(), Role::Syncing);
    let marked = small.standby().mark_standby(reign(), FIRST);
    assert!(matches!(marked, Err(ReplicationError::Refused { .. })), "{marked:?}");
    // Nor does a new export make it forget.
    small.standby().open_export(&small.pair.export_for(reign(), ExportBegin::Afresh)).await.unwrap();
    let marked = small.standby().mark_standby(reign(), FIRST);
    assert!(matches!(&marked, Err(ReplicationError::Refused { because }) if because.contains("ENOSPC")), "{marked:?}");
    // With room again it is compared and follows.
    fs::remove_file(small.filler()).unwrap();
    small.resync().await;
    small.standby().mark_standby(reign(), FIRST).unwrap();
    small.pair.write_block(201, 0x30).await;
    assert_eq!(small.role(), Role::Standby);
}

#[tokio::test]
#[cfg(feature = "mutants")]
async fn a_refused_write_that_the_copy_keeps_quiet_about_or_forgets_is_noticed() {
    let small = Small::full().await;
    small.refused_write().await;
    {
        let _planted = quorum::mutants::plant("data.refused_write_ignored");
        assert_eq!(small.role(), Role::Standby);
    }
    assert_eq!(small.role(), Role::Syncing);
    let _planted = quorum::mutants::plant("data.refusals_lost_with_the_export");
    small.standby().open_export(&small.pair.export_for(reign(), ExportBegin::Afresh)).await.unwrap();
    assert!(small.standby().mark_standby(reign(), FIRST).is_ok(), "forgotten");
}

#[tokio::test]
async fn a_refused_write_is_remembered_over_a_reboot_though_the_disk_has_no_room_for_a_word() {
    let small = Small::full_beside().await;
    small.refused_write().await;
    assert_eq!(small.standby().record().unwrap(), None, "looked at once");
    small.reboot().await;
    assert_eq!(small.standby().record().unwrap(), None);
    let goes_on = small.standby().open_export(&small.pair.export_for(reign(), ExportBegin::Continue)).await;
    assert!(matches!(goes_on, Err(ReplicationError::Refused { .. })), "{goes_on:?}");
    // With room again it is compared and follows.
    fs::remove_file(small.filler()).unwrap();
    small.standby().open_export(&small.pair.export_for(reign(), ExportBegin::Afresh)).await.unwrap();
    small.resync().await;
    small.standby().mark_standby(reign(), FIRST).unwrap();
    assert_eq!(small.role(), Role::Standby);
}

#[tokio::test]
#[cfg(feature = "mutants")]
async fn a_refused_write_that_a_reboot_makes_forgotten_is_noticed() {
    let small = Small::full_beside().await;
    small.refused_write().await;
    let _planted = quorum::mutants::plant("data.refusal_unrecorded");
    assert_eq!(small.role(), Role::Syncing, "looked at once");
    small.reboot().await;
    assert_eq!(small.role(), Role::Standby);
}
