//! Trees of files as systems have them, each written into a folder of its own.

use super::*;

/// What a tree says: the path of a file, and what it holds.
type Tree = [(&'static str, &'static str)];

fn write(tree: &Tree) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in tree {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

const GROUP: &str = "proc/self/cgroup";
const MOUNTS: &str = "proc/self/mountinfo";
const STATUS: &str = "proc/thread-self/status";

/// Version 2, mounted as a whole.
const V2_MOUNTS: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
24 22 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=4010440k
28 22 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
";

/// Version 1 with `cpu` and `cpuacct` together, mounted as a whole.
const V1_MOUNTS: &str = "\
25 20 0:23 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:7 - tmpfs tmpfs ro,mode=755
29 25 0:27 / /sys/fs/cgroup/cpuset rw,relatime shared:11 - cgroup cgroup rw,cpuset
30 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:12 - cgroup cgroup rw,cpu,cpuacct
";

/// What systems have, and how many CPUs their quotas pay for.
const SYSTEMS: &[(&str, &Tree, Option<usize>)] = &[
    (
        "docker run --cpus 2, version 2: the container sees its own group as the root",
        &[
            (GROUP, "0::/\n"),
            (
                MOUNTS,
                "\
612 530 0:58 / / rw,relatime master:270 - overlay overlay rw,lowerdir=/a:/b,upperdir=/c
615 613 0:25 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate
",
            ),
            ("sys/fs/cgroup/cpu.max", "200000 100000\n"),
        ],
        Some(2),
    ),
    (
        "docker run --cgroupns host --cpus 3, version 2: the host's names, its own group alone",
        &[
            (GROUP, "0::/system.slice/docker-3f2a.scope\n"),
            (
                MOUNTS,
                "615 613 0:25 /system.slice/docker-3f2a.scope /sys/fs/cgroup ro,relatime - cgroup2 cgroup rw\n",
            ),
            ("sys/fs/cgroup/cpu.max", "300000 100000\n"),
        ],
        Some(3),
    ),
    (
        "the same with another group of the container's in its own",
        &[
            (GROUP, "0::/system.slice/docker-3f2a.scope/job/1\n"),
            (
                MOUNTS,
                "615 613 0:25 /system.slice/docker-3f2a.scope /sys/fs/cgroup rw,relatime - cgroup2 cgroup rw\n",
            ),
            ("sys/fs/cgroup/cpu.max", "300000 100000\n"),
            ("sys/fs/cgroup/job/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/job/1/cpu.max", "800000 200000\n"),
        ],
        Some(3),
    ),
    (
        "systemd, CPUQuota=500% on a user's slice, and more on a service in it",
        &[
            (
                GROUP,
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-9.scope\n",
            ),
            (MOUNTS, V2_MOUNTS),
            ("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n"),
            (
                "sys/fs/cgroup/user.slice/user-1000.slice/cpu.max",
                "500000 100000\n",
            ),
            (
                "sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cpu.max",
                "800000 100000\n",
            ),
            (
                "sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/cpu.max",
                "max 100000\n",
            ),
            (
                "sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/run-9.scope/cpu.max",
                "max 100000\n",
            ),
        ],
        Some(5),
    ),
    (
        "systemd without a quota",
        &[
            (GROUP, "0::/system.slice/server.service\n"),
            (MOUNTS, V2_MOUNTS),
            ("sys/fs/cgroup/system.slice/cpu.max", "max 100000\n"),
            (
                "sys/fs/cgroup/system.slice/server.service/cpu.max",
                "max 100000\n",
            ),
        ],
        None,
    ),
    (
        "a group that is gone: those above it still count",
        &[
            (GROUP, "0::/batch.slice/job-7 (deleted)\n"),
            (MOUNTS, V2_MOUNTS),
            ("sys/fs/cgroup/batch.slice/cpu.max", "400000 100000\n"),
        ],
        Some(4),
    ),
    (
        "kubernetes, version 1, a limit of 2.5: the pod's group is mounted",
        &[
            (
                GROUP,
                "\
11:memory:/kubepods/burstable/pod8c1/5d9e
4:cpu,cpuacct:/kubepods/burstable/pod8c1/5d9e
1:name=systemd:/kubepods/burstable/pod8c1/5d9e
",
            ),
            (
                MOUNTS,
                "\
911 910 0:59 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
913 911 0:33 /kubepods/burstable/pod8c1/5d9e /sys/fs/cgroup/memory ro,relatime master:17 - cgroup cgroup rw,memory
914 911 0:28 /kubepods/burstable/pod8c1/5d9e /sys/fs/cgroup/cpu,cpuacct ro,relatime master:12 - cgroup cgroup rw,cpu,cpuacct
",
            ),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ],
        Some(2),
    ),
    (
        "version 1 on the host: no quota on the process's group, one on the group above",
        &[
            (GROUP, "4:cpuacct,cpu:/jobs/17\n3:cpuset:/jobs/17\n"),
            (MOUNTS, V1_MOUNTS),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_quota_us", "30000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_period_us", "5000\n"),
            (
                "sys/fs/cgroup/cpu,cpuacct/jobs/17/cpu.cfs_quota_us",
                "-1\n",
            ),
            (
                "sys/fs/cgroup/cpu,cpuacct/jobs/17/cpu.cfs_period_us",
                "100000\n",
            ),
        ],
        Some(6),
    ),
    (
        "version 1 without a quota",
        &[
            (GROUP, "4:cpu,cpuacct:/\n"),
            (MOUNTS, V1_MOUNTS),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ],
        None,
    ),
    (
        "controllers that only begin like cpu",
        &[
            (GROUP, "4:cpuset:/a\n3:cpuacct:/a\n"),
            (MOUNTS, V1_MOUNTS),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
        ],
        None,
    ),
    (
        "hybrid: cpu is version 1's, and version 2 holds processes only",
        &[
            (GROUP, "2:cpu:/jobs\n1:name=systemd:/init\n0::/init\n"),
            (
                MOUNTS,
                "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
",
            ),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "700000\n"),
            ("sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/unified/init/cgroup.procs", "1\n"),
        ],
        Some(7),
    ),
    (
        "hybrid: cpu is version 2's",
        &[
            (GROUP, "1:memory:/jobs\n0::/jobs\n"),
            (
                MOUNTS,
                "\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
",
            ),
            (
                "sys/fs/cgroup/unified/jobs/cpu.max",
                "900000 100000\n",
            ),
        ],
        Some(9),
    ),
    (
        "mounted twice: once as a whole, and the group itself",
        &[
            (GROUP, "0::/a/b\n"),
            (
                MOUNTS,
                "\
28 22 0:25 / /host/cgroup rw - cgroup2 cgroup2 rw
29 22 0:25 /a/b /sys/fs/cgroup rw - cgroup2 cgroup2 rw
",
            ),
            ("host/cgroup/a/cpu.max", "200000 100000\n"),
            ("host/cgroup/a/b/cpu.max", "400000 100000\n"),
            ("sys/fs/cgroup/cpu.max", "400000 100000\n"),
        ],
        Some(2),
    ),
    (
        "only other groups are mounted",
        &[
            (GROUP, "0::/docker2\n"),
            (
                MOUNTS,
                "\
28 22 0:25 /docker /sys/fs/cgroup rw - cgroup2 cgroup2 rw
29 22 0:25 /docker2/job /mnt rw - cgroup2 cgroup2 rw
",
            ),
            ("sys/fs/cgroup/cpu.max", "100000 100000\n"),
            ("sys/fs/cgroup/2/cpu.max", "100000 100000\n"),
            ("mnt/cpu.max", "100000 100000\n"),
        ],
        None,
    ),
    (
        "a group outside of the namespace",
        &[
            (GROUP, "0::/../../other\n"),
            (MOUNTS, V2_MOUNTS),
            ("sys/other/cpu.max", "100000 100000\n"),
            ("sys/fs/cgroup/cpu.max", "100000 100000\n"),
        ],
        None,
    ),
    (
        "names with a space, a backslash, and a colon",
        &[
            (GROUP, "0::/my jobs/a\\040:b\n"),
            (
                MOUNTS,
                "28 22 0:25 /my\\040jobs /mnt/control\\040groups rw - cgroup2 cgroup2 rw\n",
            ),
            (
                "mnt/control groups/a\\040:b/cpu.max",
                "600000 100000\n",
            ),
        ],
        Some(6),
    ),
    (
        "less than a CPU",
        &[
            (GROUP, "0::/\n"),
            (MOUNTS, V2_MOUNTS),
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
        ],
        Some(0),
    ),
];

#[test]
fn a_quota_is_found_wherever_systems_keep_it() {
    for (system, tree, expected) in SYSTEMS {
        assert_eq!(quota(write(tree).path()), *expected, "{system}");
    }
}

#[test]
fn a_quota_is_rounded_down() {
    for (cpu_max, expected) in [
        ("100000 100000", 1),
        ("150000 100000", 1),
        ("199999 100000", 1),
        ("200000 100000", 2),
        ("7 2", 3),
        ("18446744073709551615 1", usize::MAX),
    ] {
        assert_eq!(quota_of_v2(cpu_max), Some(expected), "{cpu_max}");
    }
}

fn quota_of_v2(cpu_max: &'static str) -> Option<usize> {
    let tree = [
        (GROUP, "0::/\n"),
        (MOUNTS, V2_MOUNTS),
        ("sys/fs/cgroup/cpu.max", cpu_max),
    ];
    quota(write(&tree).path())
}

#[test]
fn what_makes_no_sense_is_no_quota() {
    for cpu_max in [
        "",
        "\n",
        "max",
        "100000",
        "max max",
        "100000 max",
        "0 100000",
        "100000 0",
        "0 0",
        "-1 100000",
        "-200000 -100000",
        "100000 -100000",
        "1e5 1e5",
        "0x10 0x10",
        "18446744073709551616 100000",
        "100000 18446744073709551616",
        "200000 100000 50000",
        "two of four",
        "\0\0\0\0",
    ] {
        assert_eq!(quota_of_v2(cpu_max), None, "{cpu_max:?}");
    }
    for (quota_us, period_us) in [
        ("", ""),
        ("0", "100000"),
        ("100000", "0"),
        ("100000", ""),
        ("-1", "-1"),
        ("9223372036854775808000", "1"),
    ] {
        let tree = [
            (GROUP, "4:cpu,cpuacct:/\n"),
            (MOUNTS, V1_MOUNTS),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", quota_us),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", period_us),
        ];
        let found = quota(write(&tree).path());
        assert_eq!(found, None, "{quota_us:?} in {period_us:?}");
    }
}

#[test]
fn damaged_lists_of_groups_and_mounts_are_no_quota() {
    let damaged = [
        "",
        "\n\n\n",
        ":",
        "::",
        "0:",
        "0::",
        "0::no/slash",
        "cpu",
        "4:cpu",
        "- - - - - - -",
        "28 22 0:25 / /sys/fs/cgroup rw,nosuid",
        "28 22 0:25 / /sys/fs/cgroup rw,nosuid -",
        "28 22 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2",
        "28 22 0:25 / not/absolute rw - cgroup2 cgroup2 rw",
        "28 22 0:25 \\ /sys/fs/cgroup\\04 rw - cgroup2 cgroup2 rw",
        "28 22 0:25 / /sys/fs/cgroup\\777 rw - cgroup2 cgroup2 rw",
        "\0\u{1}\u{7f}\\\\\\",
    ];
    let limit = ("sys/fs/cgroup/cpu.max", "100000 100000\n");
    for text in damaged {
        for tree in [
            [(GROUP, text), (MOUNTS, V2_MOUNTS), limit],
            [(GROUP, "0::/\n"), (MOUNTS, text), limit],
        ] {
            assert_eq!(quota(write(&tree).path()), None, "{text:?}");
        }
    }
    assert_eq!(quota(write(&[limit]).path()), None, "no lists at all");
}

#[test]
fn a_line_that_is_no_text_hides_no_other() {
    let root = write(&[("sys/fs/cgroup/cpu.max", "300000 100000\n")]);
    let put = |path: &str, line: &[u8], more: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, [line, more.as_bytes()].concat()).unwrap();
    };
    put(GROUP, b"7:\xff\xfe:/\xff\n", "0::/\n");
    put(
        MOUNTS,
        b"21 1 0:7 / /mnt/\xff rw - ext4 /dev/\xfe rw\n",
        V2_MOUNTS,
    );
    assert_eq!(quota(root.path()), Some(3));
}

#[test]
fn there_is_a_thread_whatever_the_limits() {
    assert_eq!(threads(Some(8), None), 8);
    assert_eq!(threads(Some(8), Some(3)), 3);
    assert_eq!(threads(Some(2), Some(3)), 2);
    assert_eq!(threads(Some(8), Some(0)), 1);
    assert_eq!(threads(Some(0), None), 1);
    assert_eq!(threads(None, None), 1);
    assert_eq!(threads(None, Some(usize::MAX)), 1);
}

#[test]
fn more_cpus_than_a_mask_holds_are_counted_by_their_list() {
    for (list, expected) in [
        ("\t0", Some(1)),
        ("\t0-1", Some(2)),
        ("\t0-1279", Some(1280)),
        ("\t0-3,8,1024-1535", Some(517)),
        ("", None),
        ("\t", None),
        ("\t3-1", None),
        ("\t0-", None),
        ("\t0-1,", None),
        ("\t0-4294967295", None),
        ("\tall", None),
    ] {
        let status = format!(
            "Name:\tserver\nCpus_allowed:\tff\nCpus_allowed_list:{list}\nSpeculation:\t0\n"
        );
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(STATUS);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, status).unwrap();
        assert_eq!(allowed_cpus(root.path()), expected, "{list:?}");
    }
    assert_eq!(allowed_cpus(write(&[]).path()), None);
}

#[test]
fn here_the_mask_and_its_list_agree() {
    let mask = rustix::thread::sched_getaffinity(None).unwrap();
    assert_eq!(
        allowed_cpus(Path::new("/")),
        usize::try_from(mask.count()).ok()
    );
}

#[test]
fn a_thread_that_may_run_on_one_cpu_has_one() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    // On a thread of its own, which takes its mask with it when it ends.
    let one = std::thread::spawn(|| {
        let all = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        sched_setaffinity(None, &one).unwrap();
        available_threads()
    });
    assert_eq!(one.join().unwrap(), 1);
    assert!(available_threads() >= 1);
}

#[test]
fn memory_has_limits_of_both_versions() {
    let v1 = "30 25 0:28 / /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory\n";
    let limits: [(&Tree, Option<usize>); 4] = [
        (
            &[
                (GROUP, "0::/a/b\n"),
                (MOUNTS, V2_MOUNTS),
                ("sys/fs/cgroup/a/memory.max", "1000000\n"),
                ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ],
            Some(1_000_000),
        ),
        (
            &[
                (GROUP, "9:memory:/a\n4:cpu,cpuacct:/\n"),
                (MOUNTS, v1),
                ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2000000\n"),
                (
                    "sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n",
                ),
            ],
            Some(2_000_000),
        ),
        (
            &[
                (GROUP, "9:memory:/\n"),
                (MOUNTS, v1),
                (
                    "sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n",
                ),
            ],
            None,
        ),
        (&[(GROUP, "0::/\n"), (MOUNTS, V2_MOUNTS)], None),
    ];
    for (tree, expected) in limits {
        assert_eq!(memory_limit(write(tree).path()), expected, "{tree:?}");
    }
}
