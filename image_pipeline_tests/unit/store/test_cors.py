"""Rules of the bucket for web pages that upload to it."""

from image_pipeline.store.cors import cors, put_cors, upload_rule, with_upload_rule

FOREIGN = {"AllowedOrigins": ["https://blog.example"], "AllowedMethods": ["GET"]}


def test_a_page_may_send_files_and_parts_and_nothing_else():
    rule = upload_rule(["https://shop.example", "https://admin.example"])
    assert rule["AllowedOrigins"] == ["https://admin.example", "https://shop.example"]
    assert set(rule["AllowedMethods"]) == {"POST", "PUT"}
    assert rule["AllowedHeaders"] == ["content-type"]
    assert rule["ExposeHeaders"] == ["ETag"]


def test_rules_of_others_stay_and_ours_is_there_once():
    first = with_upload_rule([FOREIGN], ["https://shop.example"])
    second = with_upload_rule(first, ["https://new.example"])
    assert [rule.get("AllowedOrigins") for rule in second] == [
        ["https://new.example"],
        ["https://blog.example"],
    ]
    assert with_upload_rule(second, []) == [FOREIGN]


def test_the_bucket_keeps_what_it_is_given(bucket):
    assert cors(bucket.client, bucket.name) == []
    rules = with_upload_rule([FOREIGN], ["https://shop.example"])
    put_cors(bucket.client, bucket.name, rules)
    assert cors(bucket.client, bucket.name) == rules
    put_cors(bucket.client, bucket.name, [])
    assert cors(bucket.client, bucket.name) == []
