#include "model/ids.h"

#include <openssl/evp.h>

#include <algorithm>

#include "model/text.h"

namespace pesc {
namespace {
constexpr size_t kJobIdDigits = 13;
// Crockford's alphabet: no i, l, o, u.
constexpr char kCrockford[] = "0123456789abcdefghjkmnpqrstvwxyz";
constexpr char kHexDigits[] = "0123456789abcdef";

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// -1 when `c` is no digit. What people misread is read as Crockford asks.
int crockford_value(char c) {
  c = lower(c);
  if (c == 'o') c = '0';
  if (c == 'i' || c == 'l') c = '1';
  const auto* end = kCrockford + sizeof kCrockford - 1;
  const auto* found = std::find(kCrockford, end, c);
  return found == end ? -1 : static_cast<int>(found - kCrockford);
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

absl::Status bad_job_id(std::string_view text) {
  return absl::InvalidArgumentError(in_quotes(text) +
                                    " is not a job id: a job id has 13 letters and digits, as "
                                    "`pesc submit` and `pesc jobs` print them");
}
}  // namespace

std::string to_string(JobId id) {
  std::string text(kJobIdDigits, '0');
  uint64_t rest = id.value;
  for (size_t i = kJobIdDigits; i-- > 0;) {
    text[i] = kCrockford[rest & 31];
    rest >>= 5;
  }
  return text;
}

absl::StatusOr<JobId> parse_job_id(std::string_view text) {
  if (text.size() != kJobIdDigits) return bad_job_id(text);
  uint64_t value = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const int digit = crockford_value(text[i]);
    // 13 digits are 65 bits: the first one has only four of them.
    if (digit < 0 || (i == 0 && digit > 15)) return bad_job_id(text);
    value = value << 5 | static_cast<uint64_t>(digit);
  }
  return JobId{value};
}

std::string to_string(WorkerId id) {
  std::string text(16, '0');
  uint64_t rest = id.value;
  for (size_t i = text.size(); i-- > 0;) {
    text[i] = kHexDigits[rest & 15];
    rest >>= 4;
  }
  return text;
}

std::string to_string(const AttemptKey& key) {
  return to_string(key.job) + "/rank " + std::to_string(key.rank) + "/attempt " +
         std::to_string(key.attempt);
}

bool Digest::is_zero() const {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

std::string to_hex(const Digest& digest) {
  std::string hex;
  hex.reserve(2 * digest.bytes.size());
  for (uint8_t byte : digest.bytes) {
    hex += kHexDigits[byte >> 4];
    hex += kHexDigits[byte & 15];
  }
  return hex;
}

absl::StatusOr<Digest> digest_from_hex(std::string_view hex) {
  Digest digest;
  if (hex.size() != 2 * digest.bytes.size()) {
    return absl::InvalidArgumentError(in_quotes(hex) + " is not a SHA-256 digest: 64 hex digits");
  }
  for (size_t i = 0; i < digest.bytes.size(); ++i) {
    const int high = hex_value(hex[2 * i]);
    const int low = hex_value(hex[2 * i + 1]);
    if (high < 0 || low < 0) {
      return absl::InvalidArgumentError(in_quotes(hex) + " is not a SHA-256 digest: 64 hex digits");
    }
    digest.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return digest;
}

Digest sha256(std::string_view bytes) {
  // Fetched once: OpenSSL 3 looks an algorithm up by name on each use of EVP_sha256().
  static const EVP_MD* const algorithm = [] {
    const EVP_MD* fetched = EVP_MD_fetch(nullptr, "SHA256", nullptr);
    return fetched != nullptr ? fetched : EVP_sha256();
  }();
  Digest digest;
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.bytes.data(), &size, algorithm, nullptr) != 1) {
    // Out of memory, or an OpenSSL without SHA-256: a zero digest means "none" and matches nothing.
    return Digest{};
  }
  return digest;
}

}  // namespace pesc
