// What Java programs and DBeaver do through JDBC, cell by cell:
// java --add-opens=java.base/java.nio=ALL-UNNAMED -cp DRIVER.jar Jdbc.java HOST:PORT

import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.Date;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

public class Jdbc {
    interface Try {
        void run() throws Exception;
    }

    static void cell(String what, Try body) {
        String outcome = "ok";
        try {
            body.run();
        } catch (Throwable error) {
            String reason = String.valueOf(error.getMessage()).replaceAll("\\s+", " ");
            outcome = "failed: " + error.getClass().getSimpleName() + ": "
                + reason.substring(0, Math.min(300, reason.length()));
        }
        System.out.println("CELL\t" + what + "\t" + outcome);
    }

    static void expect(Object found, Object wanted) {
        if (!wanted.equals(found)) {
            throw new AssertionError(found + " instead of " + wanted);
        }
    }

    static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        try (rows) {
            while (rows.next()) {
                values.add(rows.getString(name));
            }
        }
        return values;
    }

    static Connection connect(String address, String parameters) throws SQLException {
        Properties none = new Properties();
        return DriverManager.getConnection(
            "jdbc:arrow-flight-sql://" + address + "/?useEncryption=false" + parameters, none);
    }

    static String one(Connection connection, String sql, int column) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getString(column);
        }
    }

    public static void main(String[] arguments) throws Exception {
        String address = arguments[0];
        try (Connection connection = connect(address, "")) {
            queries(connection);
            parameters(connection);
            metadata(connection);
        }
        cell("URL parameters: schema, engine", () -> {
            try (Connection other = connect(address, "&schema=jdbc_s&engine=in_process")) {
                expect(one(other, "SHOW schema", 2), "jdbc_s");
                expect(one(other, "SHOW engine", 2), "in_process");
            }
        });
        cell("URL parameter: catalog", () -> {
            Connection other = connect(address, "&catalog=tidemill");
            expect(one(other, "SELECT 1", 1), "1");
            try {
                other.close();
            } catch (SQLException error) {
                // With a catalog, 18.3 closes its channel and then wants to close the session over it.
                expect(error.getMessage(), "Channel shutdown invoked");
            }
        });
    }

    static void queries(Connection connection) {
        cell("SELECT 1, isValid", () -> {
            expect(one(connection, "SELECT 1", 1), "1");
            expect(connection.isValid(10), true);
        });
        cell("CREATE, INSERT with count, SELECT", () -> {
            try (Statement statement = connection.createStatement()) {
                statement.executeUpdate("CREATE SCHEMA IF NOT EXISTS jdbc_s");
                statement.executeUpdate("DROP TABLE IF EXISTS jdbc_t");
                statement.executeUpdate("CREATE TABLE jdbc_t (n BIGINT, w VARCHAR, d DECIMAL(10, 2), at TIMESTAMP, day DATE)");
                expect(statement.executeUpdate("INSERT INTO jdbc_t (n, w) VALUES (1, 'one'), (2, NULL)"), 2);
                ResultSet rows = statement.executeQuery("SELECT w FROM jdbc_t ORDER BY n");
                expect(column(rows, "w").toString(), "[one, null]");
            }
        });
        cell("execute() tells rows from counts", () -> {
            try (Statement statement = connection.createStatement()) {
                expect(statement.execute("SELECT 1"), true);
                expect(statement.execute("INSERT INTO jdbc_t (n) VALUES (3)"), false);
                expect(statement.getUpdateCount(), 1);
            }
        });
        cell("100,000 rows", () -> {
            try (Statement statement = connection.createStatement();
                    ResultSet rows = statement.executeQuery("SELECT value FROM generate_series(1, 100000)")) {
                long sum = 0;
                while (rows.next()) {
                    sum += rows.getLong(1);
                }
                expect(sum, 5000050000L);
            }
        });
        cell("a type of each kind", () -> {
            String sql = "SELECT true, 1, 2.5, CAST('3.25' AS DECIMAL(10, 2)), 'text', DATE '2026-02-28',"
                + " arrow_cast('2026-02-28T12:30:00', 'Timestamp(Microsecond, None)'), TIME '12:30:00', X'00ff',"
                + " make_array(1, 2), NULL, named_struct('a', 1), map([1], [2]), INTERVAL '1 day'";
            try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
                rows.next();
                for (int n = 1; n <= rows.getMetaData().getColumnCount(); n++) {
                    rows.getObject(n);
                    rows.getMetaData().getColumnTypeName(n);
                }
                expect(rows.getBigDecimal(4), new BigDecimal("3.25"));
                expect(rows.getDate(6), Date.valueOf("2026-02-28"));
            }
        });
        cell("TIMESTAMP WITH TIME ZONE by getTimestamp and getString", () -> {
            String sql = "SELECT TIMESTAMP '2026-02-28T12:30:00Z'";
            try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
                rows.next();
                expect(rows.getTimestamp(1).toInstant().toString(), "2026-02-28T12:30:00Z");
                expect(rows.getString(1).isEmpty(), false);
            }
        });
        cell("TIMESTAMP WITH TIME ZONE by getObject", () -> {
            String sql = "SELECT TIMESTAMP '2026-02-28T12:30:00Z'";
            try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
                rows.next();
                rows.getObject(1);
            }
        });
        cell("maximum of rows (DBeaver's page)", () -> {
            try (Statement statement = connection.createStatement()) {
                statement.setMaxRows(200);
                int count = 0;
                try (ResultSet rows = statement.executeQuery("SELECT value FROM generate_series(1, 1000)")) {
                    while (rows.next()) {
                        count++;
                    }
                }
                expect(count, 200);
            }
        });
        cell("errors carry code and hint", () -> {
            try {
                one(connection, "SELECT nn FROM jdbc_t", 1);
            } catch (SQLException error) {
                expect(error.getMessage().contains("TM-1002"), true);
                return;
            }
            throw new AssertionError("no error");
        });
    }

    static void parameters(Connection connection) {
        cell("prepared query, bound number and text", () -> {
            try (PreparedStatement prepared =
                    connection.prepareStatement("SELECT n FROM jdbc_t WHERE n = ? OR w = ?")) {
                prepared.setLong(1, 2);
                prepared.setString(2, "one");
                expect(column(prepared.executeQuery(), "n").size(), 2);
            }
        });
        cell("prepared INSERT: decimal, timestamp, date, NULL", () -> {
            try (PreparedStatement prepared = connection.prepareStatement("INSERT INTO jdbc_t VALUES (?, ?, ?, ?, ?)")) {
                prepared.setLong(1, 10);
                prepared.setString(2, null);
                prepared.setBigDecimal(3, new BigDecimal("12.34"));
                prepared.setTimestamp(4, Timestamp.valueOf("2026-02-28 12:30:00"));
                prepared.setDate(5, Date.valueOf("2026-02-28"));
                expect(prepared.executeUpdate(), 1);
            }
            expect(one(connection, "SELECT d FROM jdbc_t WHERE n = 10", 1), "12.34");
        });
        cell("prepared INSERT as a batch", () -> {
            try (PreparedStatement prepared = connection.prepareStatement("INSERT INTO jdbc_t (n, w) VALUES (?, ?)")) {
                for (long n = 100; n < 110; n++) {
                    prepared.setLong(1, n);
                    prepared.setString(2, "w" + n);
                    prepared.addBatch();
                }
                prepared.executeBatch();
            }
            expect(one(connection, "SELECT count(*) FROM jdbc_t WHERE n >= 100", 1), "10");
        });
    }

    static void metadata(Connection connection) {
        cell("DBeaver: product, quoting, keywords, functions", () -> {
            DatabaseMetaData data = connection.getMetaData();
            expect(data.getDatabaseProductName(), "Tidemill");
            expect(data.getIdentifierQuoteString(), "\"");
            data.getDatabaseProductVersion();
            data.getSQLKeywords();
            data.getNumericFunctions();
            data.getStringFunctions();
            data.getSystemFunctions();
            data.getTimeDateFunctions();
            data.getSearchStringEscape();
            data.getExtraNameCharacters();
            data.getCatalogTerm();
            data.getSchemaTerm();
            data.getCatalogSeparator();
            data.isCatalogAtStart();
            data.supportsTransactions();
            data.getDefaultTransactionIsolation();
            data.supportsSavepoints();
            data.supportsBatchUpdates();
            data.supportsSchemasInTableDefinitions();
            data.supportsCatalogsInDataManipulation();
            data.supportsResultSetType(ResultSet.TYPE_FORWARD_ONLY);
            data.supportsMultipleResultSets();
            data.storesLowerCaseIdentifiers();
            data.getMaxColumnNameLength();
            data.getMaxConnections();
            data.getMaxRowSize();
            data.supportsGroupBy();
            data.supportsUnion();
            data.supportsOuterJoins();
            data.supportsSubqueriesInExists();
            data.supportsANSI92EntryLevelSQL();
            data.supportsCoreSQLGrammar();
            data.supportsConvert();
        });
        cell("DBeaver: catalogs, schemas, table types", () -> {
            DatabaseMetaData data = connection.getMetaData();
            expect(column(data.getCatalogs(), "TABLE_CAT").contains("tidemill"), true);
            expect(column(data.getSchemas(), "TABLE_SCHEM").contains("public"), true);
            expect(column(data.getTableTypes(), "TABLE_TYPE").contains("TABLE"), true);
        });
        cell("DBeaver: tables and columns", () -> {
            DatabaseMetaData data = connection.getMetaData();
            expect(column(data.getTables("tidemill", "public", "jdbc%", null), "TABLE_NAME").toString(), "[jdbc_t]");
            expect(column(data.getTables(null, null, "%", new String[] {"TABLE"}), "TABLE_NAME").contains("jdbc_t"), true);
            expect(
                column(data.getColumns("tidemill", "public", "jdbc_t", "%"), "COLUMN_NAME").toString(),
                "[n, w, d, at, day]");
        });
        cell("DBeaver: keys", () -> {
            DatabaseMetaData data = connection.getMetaData();
            expect(column(data.getPrimaryKeys("tidemill", "public", "jdbc_t"), "COLUMN_NAME").size(), 0);
            expect(column(data.getImportedKeys("tidemill", "public", "jdbc_t"), "FKCOLUMN_NAME").size(), 0);
            expect(column(data.getExportedKeys("tidemill", "public", "jdbc_t"), "FKCOLUMN_NAME").size(), 0);
            expect(
                column(data.getCrossReference(null, null, "jdbc_t", null, null, "jdbc_t"), "FKCOLUMN_NAME").size(), 0);
        });
        cell("DBeaver: indexes and types", () -> {
            DatabaseMetaData data = connection.getMetaData();
            try (ResultSet rows = data.getIndexInfo("tidemill", "public", "jdbc_t", false, true)) {
                rows.next();
            }
            try (ResultSet rows = data.getTypeInfo()) {
                rows.next();
            }
        });
    }
}
