"""A Debian guest in emulation, for what the machine of the tests has not: AppArmor, and cgroup v2 for engines.

emulated_guest.py build DIRECTORY    make a disk with Debian, engines and the image of the agent demo (root, 2 minutes)
emulated_guest.py run DIRECTORY [PYTEST ARGUMENTS]    boot it and run tests inside, with this tree as it is now

The image is taken from the Docker of DOCKER_HOST, so that inside nothing has to be built. The disk is not changed by a
run. The guest has no network card, and ends at a limit that nothing inside can move. Emulated (TCG) it runs some ten
times as slow as its host, everywhere alike: /dev/kvm is not asked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from coding_agents.images.apt import SUITE, base_sources, host_suite, read_sources

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 840.0
IMAGES = ("coding-agents-base:local", "coding-agents-demo:local")
TESTS = ("tests/emulated/inside", "--engine", "all", "--require-engine", "-v", "--tb=short", "--color=no")
PYTHON = "3.11"  # of SUITE

_PACKAGES = (
    "aardvark-dns,apparmor,ca-certificates,conmon,containernetworking-plugins,crun,dbus,docker.io,git,git-lfs,initramfs-tools,"
    "iproute2,iptables,kmod,linux-image-cloud-amd64,netavark,nftables,podman,procps,python3,runc,sudo,systemd-sysv,uidmap,udev"
)
_TREE = ("agents", "bench", "images", "pyproject.toml", "requirements", "src", "tests", "tools")
_DISK = "8G"  # sparse
_STATUS = "guest: the tests ended with "

# Only what finds the disk goes into the initial RAM disk: unpacking it takes seconds here.
_INITRAMFS = """
mkdir -p "$1/etc/initramfs-tools/conf.d"
echo MODULES=list > "$1/etc/initramfs-tools/conf.d/guest"
printf 'virtio_pci\\nvirtio_blk\\n' > "$1/etc/initramfs-tools/modules"
"""
_UNIT = """
[Unit]
Description=The tests of coding-agents
After=docker.service
Wants=docker.service
[Service]
Type=oneshot
ExecStart=/bin/sh /opt/guest/run
[Install]
WantedBy=multi-user.target
"""
# A failing command must not keep the guest from going down; `tar` stops at the end of its archive, not of the disk.
_RUN = f"""
exec > /dev/hvc0 2>&1
echo "guest: up after $(cut -d' ' -f1 /proc/uptime) s, Linux $(uname -r), $(cat /sys/kernel/security/lsm)"
podman info > /dev/null # the first one reads a cold disk
mkdir -p /opt/project && tar -xf /dev/vdb -C /opt/project && cd /opt/project
dd if=/dev/zero of=/swap bs=1M count=256 status=none && chmod 600 /swap && mkswap -q /swap && swapon /swap
export HOME=/root LANG=C.UTF-8
python3 - << 'EOF'
import shlex, subprocess, sys
from pathlib import Path
arguments = Path("arguments").read_text().split("\\0")
print("guest: pytest", shlex.join(arguments), flush=True)
sys.exit(subprocess.run([sys.executable, "-m", "pytest", *arguments]).returncode)
EOF
echo "{_STATUS}$?"
dmesg | grep -a apparmor=.DENIED | tail -40
sync
echo o > /proc/sysrq-trigger
sleep 60
"""


def main() -> None:
    match sys.argv[1:]:
        case ["build", directory]:
            build(Path(directory).resolve())
        case ["run", directory, *arguments]:
            sys.exit(run(Path(directory).resolve(), arguments or TESTS))
        case _:
            sys.exit(__doc__)


def build(directory: Path) -> None:
    """Make DIRECTORY/{disk,kernel,initrd}."""
    directory.mkdir(parents=True, exist_ok=True)
    tree = directory / "tree"
    started = time.monotonic()

    def done(what: str) -> None:
        print(f"emulated guest: {what} ({time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)

    try:
        _debian(directory, tree)
        done("Debian is unpacked")
        _images(directory, tree)
        done("both engines have the images")
        _programs(tree)
        argv = ("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "root_owner=0:0", "-d", tree)
        _run(*argv, directory / "disk", _DISK, env={**os.environ, "PATH": _path()})
        done("the disk is written")
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _debian(directory: Path, tree: Path) -> None:
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    sources = base_sources(read_sources(Path("/etc/apt")), host_suite=host_suite(release))
    (directory / "sources.list").write_text("".join(f"{line}\n" for line in sources), encoding="utf-8")
    # In mounts of its own, as in src/coding_agents/images/rootfs.py.
    _run(
        *("unshare", "--mount", "--propagation", "private", "--", "mmdebstrap", "--variant=minbase"),
        *("--format=directory", "--logfile=" + str(directory / "mmdebstrap.log")),
        *('--aptopt=APT::Install-Recommends "false"', "--dpkgopt=" + str(ROOT / "images/base/dpkg.cfg")),
        *(f"--essential-hook={_INITRAMFS}", f"--include={_PACKAGES}"),
        *(SUITE, tree, directory / "sources.list"),
        env={**os.environ, "PATH": _path()},
    )
    for name, pattern in (("kernel", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        (found,) = (tree / "boot").glob(pattern)
        shutil.copy(found, directory / name)
    shutil.rmtree(tree / "boot")


def _images(directory: Path, tree: Path) -> None:
    """Fill the stores of both engines here: loading an image in emulation takes minutes."""
    stores = directory / "stores"
    _run(ROOT / "tools/test-engine", "up", stores, "--owner", str(os.getpid()))
    try:
        name = (stores / "name").read_text().strip()
        socket = f"unix:///run/coding-agents-test/{name}/docker.sock"
        archive = directory / "images.tar"
        _run("docker", "save", "-o", archive, *IMAGES)
        _run("docker", "-H", socket, "load", "-q", "-i", archive, stdout=subprocess.DEVNULL)
        _run(stores / "bin/podman", "load", "-q", "-i", archive, stdout=subprocess.DEVNULL)
        archive.unlink()
    finally:
        _run(ROOT / "tools/test-engine", "down", stores)  # which removes no directory of this name
    shutil.rmtree(tree / "var/lib/docker", ignore_errors=True)
    shutil.move(stores / "docker", tree / "var/lib/docker")
    (tree / "var/lib/containers").mkdir(exist_ok=True)
    shutil.rmtree(tree / "var/lib/containers/storage", ignore_errors=True)
    shutil.move(stores / "podman/storage", tree / "var/lib/containers/storage")
    shutil.rmtree(tree / "var/lib/containers/storage/libpod")  # its paths of here; Podman makes it anew
    shutil.rmtree(stores)


def _programs(tree: Path) -> None:
    """The Python packages that the product and its tests need, and the service that runs them."""
    guest = tree / "opt/guest"
    guest.mkdir()
    for pins in ("run", "test"):
        _run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *(
                "--target",
                tree / f"usr/local/lib/python{PYTHON}/dist-packages",
                "--python-version",
                PYTHON,
                "--only-binary",
                ":all:",
            ),
            *("--upgrade", "--require-hashes", "-r", ROOT / f"requirements/{pins}.txt"),
        )
    (guest / "run").write_text(_RUN, encoding="utf-8")
    units = tree / "etc/systemd/system"
    (units / "guest.service").write_text(_UNIT, encoding="utf-8")
    (units / "multi-user.target.wants/guest.service").symlink_to("../guest.service")
    for unit in ("serial-getty@.service", "getty@.service", "apt-daily.timer", "apt-daily-upgrade.timer"):
        (units / unit).symlink_to("/dev/null")
    for name in ("etc/apt/sources.list", "etc/resolv.conf"):
        (tree / name).unlink(missing_ok=True)
    (tree / "etc/hostname").write_text("guest\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost guest\n")
    (tree / "etc/coding-agents-emulated").touch()


def run(directory: Path, arguments: list[str] | tuple[str, ...], *, limit_s: float = LIMIT_S) -> int:
    """Boot, run pytest with `arguments` inside, print what it says; returns its status, 125 if it did not come to one.

    DIRECTORY/console.log is what kernel and systemd said, DIRECTORY/output.log what the tests did.
    """
    _pack(directory / "project.tar", arguments)
    output, console = directory / "output.log", directory / "console.log"
    output.write_bytes(b"")
    argv = _qemu(directory, console, output)
    end = time.monotonic() + limit_s
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(directory)}
    ) as guest:
        try:
            _follow(guest, output, end)
        finally:
            guest.kill()
    text = output.read_text("utf-8", "replace")
    status = text.rpartition(_STATUS)[2].split()[:1] if _STATUS in text else []
    if status == ["0"]:
        return 0
    kept = Path(tempfile.mkdtemp(prefix="emulated-guest-failed-"))
    for log in (console, output):
        shutil.copy(log, kept)
    print(f"emulated guest: what kernel and tests said is kept in {kept}", file=sys.stderr)
    if status and status[0].isdigit():
        return int(status[0])
    last = "\n".join(console.read_text("utf-8", "replace").splitlines()[-20:])
    print(f"{last}\nemulated guest: no result in {limit_s:.0f} s", file=sys.stderr)
    return 125


def _pack(tar: Path, arguments: list[str] | tuple[str, ...]) -> None:
    """The program and its tests as they are now, and the arguments of pytest."""
    given = tar.parent / "arguments"
    given.write_text("\0".join(arguments))
    _run("tar", "-C", ROOT, "--exclude=__pycache__", "-cf", tar, *_TREE, "-C", tar.parent, given.name)
    given.unlink()


def _qemu(directory: Path, console: Path, output: Path) -> tuple[str, ...]:
    drives = (
        f"file={directory}/disk,format=raw,if=virtio,snapshot=on,cache=unsafe",
        f"file={directory}/project.tar,format=raw,if=virtio,readonly=on",
    )
    return (
        *("setpriv", "--pdeathsig", "KILL", "--"),  # whatever kills us
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "4096"),
        *("-kernel", f"{directory}/kernel", "-initrd", f"{directory}/initrd"),
        *("-append", "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=false mitigations=off"),
        *(word for drive in drives for word in ("-drive", drive)),
        *("-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"),
        *("-device", "virtio-serial", "-chardev", f"file,id=output,path={output}"),
        *("-device", "virtconsole,chardev=output", "-device", "virtio-rng-pci", "-nic", "none"),
    )


def _follow(guest: subprocess.Popen[bytes], output: Path, end: float) -> None:
    """Print what the tests say until the guest is off, or `end` has come."""
    with output.open("rb") as said:
        while time.monotonic() < end:
            running = guest.poll() is None
            sys.stdout.buffer.write(said.read())
            sys.stdout.flush()
            if not running:
                return
            time.sleep(0.5)


def _run(*argv: str | Path, **options: object) -> None:
    subprocess.run([os.fspath(word) for word in argv], check=True, timeout=600, **options)  # type: ignore[call-overload]


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


if __name__ == "__main__":
    main()
