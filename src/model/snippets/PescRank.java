import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * What PESC tells a rank. Put this file beside your program (Java 8 or later, nothing else):
 *
 * <pre>
 *   PescRank pesc = PescRank.from(args);
 *   System.out.println(pesc.rank() + " of " + pesc.worldSize());
 *   pesc.progress(0.5, "half-way");
 *   Files.write(pesc.outputDir().resolve("result.csv"), bytes);
 * </pre>
 *
 * Started by PESC, the values are those of the job. Started alone, they are those of the command
 * line (--rank 3 ...), else of the environment (PESC_RANK=3), else rank 0 of 1 in ".", with
 * "./checkpoint" and "./output", which are made when they are first asked for. Thread-safe.
 */
public final class PescRank {
  private static final List<String> FLAGS = Arrays.asList("app_dir", "checkpoint_dir", "output_dir",
      "rank", "world_size", "master_addr", "master_port", "parameters");

  private final Map<String, String> given = new HashMap<>();
  private final List<String> own = new ArrayList<>();
  private List<String> parameters;
  private final boolean alone = variable("PESC_JOB", "").isEmpty();
  private String lastText;
  private double lastFraction = -1;

  private PescRank(String[] args) {
    String lines = variable("PESC_PARAMETERS", "");
    parameters = lines.isEmpty() ? new ArrayList<>() : Arrays.asList(lines.split("\n", -1));
    List<String> all = Arrays.asList(args);
    if (alone) {
      readByHand(all);
      return;
    }
    int begin = block(all);
    own.addAll(all.subList(0, begin));
    if (begin + 15 < all.size()) parameters = all.subList(begin + 15, all.size());
  }

  /** The rank this process is; args as main() got them. */
  public static PescRank from(String[] args) {
    return new PescRank(args);
  }

  /** The program's own arguments: those given, without PESC's. */
  public String[] ownArguments() {
    return own.toArray(new String[0]);
  }

  public int rank() {
    return Integer.parseInt(value("rank", "0"));
  }

  public int worldSize() {
    return Integer.parseInt(value("world_size", "1"));
  }

  public Path appDir() {
    return Paths.get(value("app_dir", "."));
  }

  /** What is written here is there again when the rank is restarted. */
  public Path checkpointDir() throws IOException {
    return made(value("checkpoint_dir", "./checkpoint"));
  }

  /** What is written here comes back. */
  public Path outputDir() throws IOException {
    return made(value("output_dir", "./output"));
  }

  public String masterAddr() {
    return value("master_addr", "127.0.0.1");
  }

  public int masterPort() {
    return Integer.parseInt(value("master_port", "9000"));
  }

  public List<String> parameters() {
    return Collections.unmodifiableList(parameters);
  }

  /** For random streams; the same on every attempt. Unsigned: see Long.toUnsignedString. */
  public long seed() {
    String seed = variable("PESC_SEED", "");
    return seed.isEmpty() ? seedOf(0, rank()) : Long.parseUnsignedLong(seed);
  }

  public int attempt() {
    return Integer.parseInt(variable("PESC_ATTEMPT", "1"));
  }

  public boolean isAlone() {
    return alone;
  }

  /** How far the rank is, 0 to 1. Cheap: a thousandth more of the same is not written. */
  public synchronized void progress(double fraction, String text) throws IOException {
    if (Double.isNaN(fraction)) throw new IllegalArgumentException("progress: give 0 to 1");
    double more = fraction - lastFraction;
    if (text.equals(lastText) && fraction < 1 && more >= 0 && more < 1e-3) return;
    lastText = text;
    lastFraction = fraction;
    event("progress " + Math.min(1, Math.max(0, fraction)) + " " + text);
  }

  /** A number worth seeing while the job runs. */
  public void metric(String name, double value) throws IOException {
    if (name.isEmpty() || Double.isNaN(value) || Double.isInfinite(value)) {
      throw new IllegalArgumentException("metric: give a name and a finite number");
    }
    event("metric " + name.replaceAll("\\s+", "_") + " " + value);
  }

  /** checkpointDir is complete now: PESC may save it. */
  public void checkpointDone() throws IOException {
    event("checkpoint");
  }

  /** Saves bytes as checkpointDir/name, whole or not at all. */
  public void saveCheckpoint(String name, byte[] bytes) throws IOException {
    Path temporary = checkpointDir().resolve(name + ".tmp");
    Files.write(temporary, bytes);
    sync(temporary, StandardOpenOption.WRITE);
    Files.move(temporary, checkpointDir().resolve(name), StandardCopyOption.REPLACE_EXISTING,
        StandardCopyOption.ATOMIC_MOVE);
    sync(checkpointDir(), StandardOpenOption.READ);
    checkpointDone();
  }

  /** The bytes saved under that name, or null at a fresh start. */
  public byte[] loadCheckpoint(String name) throws IOException {
    try {
      return Files.readAllBytes(checkpointDir().resolve(name));
    } catch (NoSuchFileException fresh) {
      return null;
    }
  }

  private static String variable(String name, String otherwise) {
    String value = System.getenv(name);
    return value == null || value.isEmpty() ? otherwise : value;
  }

  private String value(String name, String otherwise) {
    String value = given.get(name);
    if (value != null) return value;
    return variable("PESC_" + name.toUpperCase(Locale.ROOT), otherwise);
  }

  /** Where the arguments that PESC added begin: they are the last ones. */
  private static int block(List<String> all) {
    for (int i = all.size() - 14; i >= 0; --i) {
      if (all.get(i).equals("--app_dir") && all.get(i + 1).equals(variable("PESC_APP_DIR", "."))
          && all.get(i + 2).equals("--checkpoint_dir")) {
        return i;
      }
    }
    return all.size();
  }

  /** Long flags only: -r and -o may be the program's own. */
  private static String flag(String argument) {
    if (!argument.startsWith("--")) return null;
    String name = argument.substring(2).split("=", 2)[0];
    return FLAGS.contains(name) ? name : null;
  }

  private void readByHand(List<String> all) {
    for (int i = 0; i < all.size(); ++i) {
      String argument = all.get(i);
      String name = flag(argument);
      int equals = argument.indexOf('=');
      if (argument.equals("--")) {
        own.addAll(all.subList(i, all.size()));
        return;
      }
      if ("parameters".equals(name)) {
        parameters = equals < 0 ? all.subList(i + 1, all.size())
                                : Collections.singletonList(argument.substring(equals + 1));
        if (equals < 0) return;
      } else if (name != null && equals >= 0) {
        given.put(name, argument.substring(equals + 1));
      } else if (name != null && i + 1 < all.size()) {
        given.put(name, all.get(++i));
      } else {
        own.add(argument);
      }
    }
  }

  private Path made(String directory) throws IOException {
    if (alone) Files.createDirectories(Paths.get(directory));
    return Paths.get(directory);
  }

  private static void event(String line) throws IOException {
    String events = variable("PESC_EVENTS", "");
    if (events.isEmpty()) return;
    byte[] bytes = (line.replaceAll("\\p{Cntrl}", " ") + "\n").getBytes(StandardCharsets.UTF_8);
    Files.write(Paths.get(events), bytes, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
  }

  private static void sync(Path path, StandardOpenOption option) throws IOException {
    try (FileChannel channel = FileChannel.open(path, option)) {
      channel.force(true);
    }
  }

  /** The SplitMix64 finaliser, as PESC computes PESC_SEED. */
  private static long seedOf(long jobSeed, int rank) {
    long z = jobSeed + (rank + 1L) * 0x9e3779b97f4a7c15L;
    z = (z ^ (z >>> 30)) * 0xbf58476d1ce4e5b9L;
    z = (z ^ (z >>> 27)) * 0x94d049bb133111ebL;
    return z ^ (z >>> 31);
  }
}
