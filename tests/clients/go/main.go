// What Go programs do through ADBC, cell by cell: go run . grpc://HOST:PORT
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

func cell(what string, body func() error) {
	outcome := "ok"
	if err := body(); err != nil {
		reason := strings.Join(strings.Fields(err.Error()), " ")
		outcome = "failed: " + reason[:min(300, len(reason))]
	}
	fmt.Printf("CELL\t%s\t%s\n", what, outcome)
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func expect(found, wanted int64) error {
	if found != wanted {
		return fmt.Errorf("%d instead of %d", found, wanted)
	}
	return nil
}

// sum runs the query and adds its first column up.
func sum(ctx context.Context, statement adbc.Statement) (int64, error) {
	rows, _, err := statement.ExecuteQuery(ctx)
	if err != nil {
		return 0, err
	}
	defer rows.Release()
	var total int64
	for rows.Next() {
		for _, value := range rows.Record().Column(0).(*array.Int64).Int64Values() {
			total += value
		}
	}
	return total, rows.Err()
}

func query(ctx context.Context, connection adbc.Connection, sql string) (int64, error) {
	statement, err := connection.NewStatement()
	if err != nil {
		return 0, err
	}
	defer statement.Close()
	if err := statement.SetSqlQuery(sql); err != nil {
		return 0, err
	}
	return sum(ctx, statement)
}

func update(ctx context.Context, connection adbc.Connection, sql string) (int64, error) {
	statement, err := connection.NewStatement()
	if err != nil {
		return 0, err
	}
	defer statement.Close()
	if err := statement.SetSqlQuery(sql); err != nil {
		return 0, err
	}
	return statement.ExecuteUpdate(ctx)
}

func numbers(values ...int64) arrow.Record {
	schema := arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}, nil)
	builder := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer builder.Release()
	builder.Field(0).(*array.Int64Builder).AppendValues(values, nil)
	return builder.NewRecord()
}

func main() {
	ctx := context.Background()
	database := must(flightsql.NewDriver(memory.DefaultAllocator).NewDatabase(map[string]string{"uri": os.Args[1]}))
	defer database.Close()
	connection := must(database.Open(ctx))
	defer connection.Close()

	cell("100,000 rows", func() error {
		total, err := query(ctx, connection, "SELECT value FROM generate_series(1, 100000)")
		if err != nil {
			return err
		}
		return expect(total, 5000050000)
	})
	cell("CREATE, INSERT with count", func() error {
		for _, sql := range []string{"DROP TABLE IF EXISTS go_t", "CREATE TABLE go_t (n BIGINT)"} {
			if _, err := update(ctx, connection, sql); err != nil {
				return err
			}
		}
		count, err := update(ctx, connection, "INSERT INTO go_t VALUES (1), (2)")
		if err != nil {
			return err
		}
		return expect(count, 2)
	})
	cell("prepared statement, bound", func() error {
		statement := must(connection.NewStatement())
		defer statement.Close()
		if err := statement.SetSqlQuery("SELECT n FROM go_t WHERE n = ?"); err != nil {
			return err
		}
		if err := statement.Prepare(ctx); err != nil {
			return err
		}
		if err := statement.Bind(ctx, numbers(2)); err != nil {
			return err
		}
		total, err := sum(ctx, statement)
		if err != nil {
			return err
		}
		return expect(total, 2)
	})
	cell("ingest: append", func() error {
		statement := must(connection.NewStatement())
		defer statement.Close()
		options := map[string]string{
			adbc.OptionKeyIngestTargetTable: "go_t",
			adbc.OptionKeyIngestMode:        adbc.OptionValueIngestModeAppend,
		}
		for key, value := range options {
			if err := statement.SetOption(key, value); err != nil {
				return err
			}
		}
		if err := statement.Bind(ctx, numbers(10, 20, 30)); err != nil {
			return err
		}
		if _, err := statement.ExecuteUpdate(ctx); err != nil {
			return err
		}
		total, err := query(ctx, connection, "SELECT sum(n) FROM go_t")
		if err != nil {
			return err
		}
		return expect(total, 63)
	})
	cell("objects", func() error {
		name := "go_t"
		objects, err := connection.GetObjects(ctx, adbc.ObjectDepthAll, nil, nil, &name, nil, nil)
		if err != nil {
			return err
		}
		defer objects.Release()
		if !objects.Next() {
			return fmt.Errorf("no catalog")
		}
		return objects.Err()
	})
	cell("table schema", func() error {
		schema, err := connection.GetTableSchema(ctx, nil, nil, "go_t")
		if err != nil {
			return err
		}
		return expect(int64(schema.NumFields()), 1)
	})
	cell("errors carry a code", func() error {
		_, err := query(ctx, connection, "SELECT nn FROM go_t")
		if err == nil || !strings.Contains(err.Error(), "TM-1002") {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}
