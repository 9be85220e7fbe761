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
# Bombs: small files that would unpack to 1.5 GiB of zeros. Each format is written by hand, so that
# making them takes no time: a zstd frame of run-length blocks, a deflate stream of equal pieces.
python3 - <<'P'
import struct, tarfile, zlib
size = 3 << 29
info = tarfile.TarInfo("zeros")
info.size = size
header = info.tobuf(tarfile.GNU_FORMAT)
def block(kind, length, body, last=0):
    return struct.pack("<I", length << 3 | kind << 1 | last)[:3] + body
run = 128 << 10
with open("bomb.tar.zst", "wb") as out:
    out.write(struct.pack("<IBB", 0xFD2FB528, 0, 0x58))  # no checksum; a window of 2 MiB
    out.write(block(0, len(header), header))
    out.write(block(1, run, b"\0") * (size // run))
    out.write(block(1, 1024, b"\0", last=1))
piece = 16 << 20
packer = zlib.compressobj(9, zlib.DEFLATED, -15)
deflated = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
stream = deflated * (size // piece) + packer.flush()
crc = 0
for _ in range(size // piece):
    crc = zlib.crc32(bytes(piece), crc)
fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(stream), size, 5, 0)
local = b"PK\3\4" + fields + b"zeros"
central = b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0)
central += b"zeros"
end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local) + len(stream), 0)
open("bomb.zip", "wb").write(local + stream + central + end)
P
for archive in bomb.tar.zst bomb.zip; do
  [ "$(stat -c %s $archive)" -lt 2000000 ] || fail "$archive is no small file"
  expect 2 pesc run --archive $archive -- ./who
  says "$archive"
  says "bomb"
  [ -z "$(find . -name .pesc)" ] || fail "something was stored for $archive"
done
for archive in absolute dots link linkout device text; do
  expect 2 pesc run --archive $archive.tar -- ./who
  says "$archive.tar"
  [ -z "$(find . -name .pesc)" ] || fail "something was stored for $archive"
done
expect 0 pesc run -o r --archive good.tar -- ./who
grep -q 'from the archive' r/output.txt || fail "the archive was not unpacked"
absent r/rank-0/good.tar
done_with_tests
