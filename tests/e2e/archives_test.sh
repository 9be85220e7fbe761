# Archives that would write elsewhere are refused when the job is submitted; a good one is unpacked.
. "$(dirname "$0")/lib.sh"
script who 'cat data/x; ls'

python3 - <<'P'
import io, tarfile
def one(name, **fields):
    tar = tarfile.open(name, "w")
    info = tarfile.TarInfo(fields.pop("path", "x"))
    body = fields.pop("body", b"")
    for key, value in fields.items():
        setattr(info, key, value)
    info.size = len(body)
    tar.addfile(info, io.BytesIO(body))
    tar.close()
one("absolute.tar", path="/tmp/pesc-e2e-x", body=b"x")
one("dots.tar", path="../x", body=b"x")
one("link.tar", type=tarfile.SYMTYPE, linkname="/etc/passwd")
one("linkout.tar", type=tarfile.SYMTYPE, linkname="../../x")
one("device.tar", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
one("good.tar", path="data/x", body=b"from the archive\n")
P
echo "this is no archive" >text.tar
for archive in absolute dots link linkout device text; do
  expect 2 pesc run --archive $archive.tar -- ./who
  says "$archive.tar"
  [ -z "$(find . -name .pesc)" ] || fail "something was stored for $archive"
done
expect 0 pesc run -o r --archive good.tar -- ./who
grep -q 'from the archive' r/output.txt || fail "the archive was not unpacked"
absent r/rank-0/good.tar
done_with_tests
