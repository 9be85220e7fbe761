#include "runtime/worker/shell/cache.h"

#include <gtest/gtest.h>

#include "runtime/worker/shell/identity.h"
#include "tests/worker_shell/support.h"

namespace pesc::worker {
namespace {

BlobRef put(Cache& cache, const std::string& bytes) {
  auto blob = cache.store().put(bytes);
  EXPECT_TRUE(blob.ok()) << blob.status();
  return *blob;
}

TEST(Cache, GivesUpTheLeastRecentlyUsedThatNobodyNeeds) {
  TemporaryDirectory state;
  auto cache = *Cache::open(state.path(), 250);
  const BlobRef a = put(*cache, std::string(100, 'a')), b = put(*cache, std::string(100, 'b')),
                c = put(*cache, std::string(100, 'c'));
  cache->pin({a});
  cache->pin({b});
  EXPECT_TRUE(cache->choose_victims().empty());
  cache->pin({c});
  EXPECT_TRUE(cache->choose_victims().empty()) << "all are in use";
  cache->unpin({a});
  cache->unpin({b});
  cache->pin({a});  // used again: b is the older one now
  cache->unpin({a});
  const std::vector<Digest> victims = cache->choose_victims();
  ASSERT_EQ(victims, std::vector<Digest>{b.digest});
  ASSERT_TRUE(cache->evict(victims).ok());
  EXPECT_FALSE(cache->contains(b.digest));
  EXPECT_TRUE(cache->contains(a.digest));
  EXPECT_TRUE(cache->contains(c.digest));
}

TEST(Cache, KeepsItsBlobsAndCountsThemAfterARestart) {
  TemporaryDirectory state;
  const std::string bytes(200, 'x');
  {
    auto cache = *Cache::open(state.path(), 1000);
    put(*cache, bytes);
    ASSERT_TRUE(cache->close().ok());
  }
  auto cache = *Cache::open(state.path(), 100);
  EXPECT_TRUE(cache->contains(blob_of(bytes).digest));
  EXPECT_EQ(cache->choose_victims(), std::vector<Digest>{blob_of(bytes).digest});
}

TEST(Cache, IsDroppedWhenTheMachineWentDownUnderIt) {
  TemporaryDirectory state;
  const std::string bytes(200, 'x');
  {
    auto cache = *Cache::open(state.path(), 1000);
    put(*cache, bytes);
  }  // not closed: killed
  {
    auto cache = *Cache::open(state.path(), 1000);
    EXPECT_TRUE(cache->contains(blob_of(bytes).digest)) << "the machine is still up";
  }
  write_file(state.path() / "cache.open", "an earlier boot");
  auto cache = *Cache::open(state.path(), 1000);
  EXPECT_FALSE(cache->contains(blob_of(bytes).digest));
}

TEST(Cache, MakesOneSharedCopyOfEachMode) {
  TemporaryDirectory state;
  auto cache = *Cache::open(state.path(), 1000);
  const BlobRef blob = put(*cache, "shared");
  auto first = cache->shared_copy(blob.digest, false);
  ASSERT_TRUE(first.ok()) << first.status();
  const FilePrint print = file_print(*first);
  EXPECT_EQ(*cache->shared_copy(blob.digest, false), *first);
  EXPECT_EQ(file_print(*first), print);
  auto executable = cache->shared_copy(blob.digest, true);
  ASSERT_TRUE(executable.ok());
  EXPECT_NE(*executable, *first);
  EXPECT_TRUE(absl::IsNotFound(cache->shared_copy(sha256("missing"), false).status()));
}

}  // namespace
}  // namespace pesc::worker
