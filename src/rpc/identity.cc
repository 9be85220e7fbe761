// The coordinator's own certificate. It is its own authority: who has it in a join file trusts it
// and nothing else, so neither a CA nor host names matter.
#include <fmt/core.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <memory>

#include "rpc/credentials.h"
#include "rpc/handshake.h"
#include "rpc/private_file.h"

namespace pesc::rpc {
namespace {

template <auto free>
struct Free {
  template <typename T>
  void operator()(T* p) const {
    free(p);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Bio = std::unique_ptr<BIO, Free<BIO_free>>;

constexpr long kDay = 24 * 60 * 60;
constexpr long kBackdate = 30 * kDay;        // the clocks of lab machines differ
constexpr long kValidity = 20 * 365 * kDay;  // outlives the machines; join files go with it

absl::Status openssl_error(const char* what) {
  char text[256] = "unknown";
  if (unsigned long code = ERR_get_error()) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return absl::InternalError(fmt::format("cannot make a certificate: {} ({})", what, text));
}

bool add_extension(X509* certificate, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  if (!extension) return false;
  bool added = X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

bool set_name(X509* certificate) {
  X509_NAME* name = X509_get_subject_name(certificate);
  return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                    reinterpret_cast<const unsigned char*>(kCertificateName), -1,
                                    -1, 0) == 1 &&
         X509_set_issuer_name(certificate, name) == 1;
}

bool set_serial(X509* certificate) {
  unsigned char bytes[16];
  if (RAND_bytes(bytes, sizeof bytes) != 1) return false;
  bytes[0] = (bytes[0] & 0x7f) | 0x40;  // positive, and never short
  BIGNUM* number = BN_bin2bn(bytes, sizeof bytes, nullptr);
  bool set = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != nullptr;
  BN_free(number);
  return set;
}

// CA:FALSE: with the key of one coordinator nobody can vouch for another.
absl::StatusOr<Certificate> make_certificate(EVP_PKEY* key) {
  Certificate certificate(X509_new());
  X509* c = certificate.get();
  if (!c || X509_set_version(c, 2) != 1 || !set_serial(c) || !set_name(c) ||
      !X509_gmtime_adj(X509_getm_notBefore(c), -kBackdate) ||
      !X509_gmtime_adj(X509_getm_notAfter(c), kValidity) || X509_set_pubkey(c, key) != 1) {
    return openssl_error("its fields");
  }
  std::string names = std::string("DNS:") + kCertificateName;
  if (!add_extension(c, NID_basic_constraints, "critical,CA:FALSE") ||
      !add_extension(c, NID_subject_alt_name, names.c_str()) ||
      !add_extension(c, NID_ext_key_usage, "serverAuth")) {
    return openssl_error("its extensions");
  }
  if (X509_sign(c, key, EVP_sha256()) == 0) return openssl_error("its signature");
  return certificate;
}

std::string content_of(BIO* bio) {
  char* data = nullptr;
  long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(size));
}

absl::StatusOr<Identity> to_pem(EVP_PKEY* key, X509* certificate) {
  Bio key_bio(BIO_new(BIO_s_mem())), certificate_bio(BIO_new(BIO_s_mem()));
  if (!key_bio || !certificate_bio ||
      PEM_write_bio_PKCS8PrivateKey(key_bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) !=
          1 ||
      PEM_write_bio_X509(certificate_bio.get(), certificate) != 1) {
    return openssl_error("its text");
  }
  return Identity{content_of(certificate_bio.get()), content_of(key_bio.get())};
}

absl::StatusOr<Identity> parse_identity(const std::string& pem, const std::filesystem::path& path) {
  Bio key_bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  Bio certificate_bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  Key key(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, nullptr, nullptr));
  Certificate certificate(PEM_read_bio_X509(certificate_bio.get(), nullptr, nullptr, nullptr));
  if (!key || !certificate || X509_check_private_key(certificate.get(), key.get()) != 1) {
    ERR_clear_error();
    return absl::DataLossError(
        fmt::format("{} is damaged: restore it from a backup, or remove it and make new join files "
                    "for all workers and users",
                    path.string()));
  }
  return to_pem(key.get(), certificate.get());
}

}  // namespace

absl::StatusOr<Identity> make_identity() {
  Key key(EVP_EC_gen("P-256"));
  if (!key) return openssl_error("its key");
  absl::StatusOr<Certificate> certificate = make_certificate(key.get());
  if (!certificate.ok()) return certificate.status();
  return to_pem(key.get(), certificate->get());
}

absl::StatusOr<Identity> load_or_create_identity(const std::filesystem::path& state_dir) {
  std::filesystem::path path = state_dir / "identity.pem";
  absl::StatusOr<std::string> pem = read_private_file(path);
  if (pem.ok()) return parse_identity(*pem, path);
  if (pem.status().code() != absl::StatusCode::kNotFound) return pem.status();

  absl::StatusOr<Identity> identity = make_identity();
  if (!identity.ok()) return identity;
  absl::Status written = write_private_file(path, identity->key_pem + identity->certificate_pem);
  if (!written.ok()) return written;
  return identity;
}

}  // namespace pesc::rpc
