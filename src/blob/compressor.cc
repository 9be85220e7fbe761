#include "blob/compressor.h"

#include <zstd.h>

#include <memory>
#include <utility>

namespace pesc::blob {
namespace {

// Level 1: outputs are packed while the next rank waits for a core. Its window is 512 KiB.
constexpr int kLevel = 1;
constexpr size_t kOneCallBytes = 128 * 1024;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};
// Taken out while in use, so that a sink that packs something itself gets one of its own.
thread_local std::unique_ptr<ZSTD_CCtx, FreeContext> spare_context;

absl::Status zstd_error(size_t code) {
  return absl::InternalError(std::string("zstd: ") + ZSTD_getErrorName(code));
}

}  // namespace

Compressor::Compressor(const ByteSink& sink) : sink_(sink), context_(spare_context.release()) {
  if (context_ == nullptr) {
    context_ = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context_, ZSTD_c_compressionLevel, kLevel);
    ZSTD_CCtx_setParameter(context_, ZSTD_c_checksumFlag, 1);
  }
}

Compressor::~Compressor() {
  ZSTD_CCtx_reset(context_, ZSTD_reset_session_only);
  spare_context.reset(context_);
}

absl::Status Compressor::append(std::string_view bytes) {
  if (!streaming_) {
    if (start_.size() + bytes.size() <= kOneCallBytes) {
      start_ += bytes;
      return absl::OkStatus();
    }
    streaming_ = true;
    out_.resize(ZSTD_CStreamOutSize());
    if (absl::Status status = stream(start_, false); !status.ok()) return status;
    std::string().swap(start_);
  }
  return stream(bytes, false);
}

absl::Status Compressor::stream(std::string_view bytes, bool end) {
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  while (true) {
    ZSTD_outBuffer out{out_.data(), out_.size(), 0};
    const size_t left =
        ZSTD_compressStream2(context_, &out, &in, end ? ZSTD_e_end : ZSTD_e_continue);
    if (ZSTD_isError(left)) return zstd_error(left);
    if (out.pos > 0) {
      if (absl::Status sunk = sink_({out_.data(), out.pos}); !sunk.ok()) return sunk;
    }
    if (end ? left == 0 : in.pos == in.size) return absl::OkStatus();
  }
}

absl::Status Compressor::finish() {
  if (streaming_) return stream({}, true);
  out_.resize(ZSTD_compressBound(start_.size()));
  const size_t size =
      ZSTD_compress2(context_, out_.data(), out_.size(), start_.data(), start_.size());
  if (ZSTD_isError(size)) return zstd_error(size);
  return sink_({out_.data(), size});
}

}  // namespace pesc::blob
