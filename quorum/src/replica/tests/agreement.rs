//! Agreement whatever the network, the disks and the processes do.

use super::world::*;

#[test]
fn a_cluster_elects_one_leader_and_applies_the_same_everywhere() {
    for voters in [1, 2, 3, 5, 7] {
        let mut world = World::new(voters, voters);
        world.elect();
        for n in 0..20u8 {
            world.commit(&[n + 1]);
        }
        world.heal_and_converge();
        assert!(world.applied_anywhere() >= 22);
    }
}
