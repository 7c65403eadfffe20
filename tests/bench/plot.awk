# Draws the bars of a results file: a group a job, psync's own bars in colour. The picture brings its
# own light ground, so that it reads on any page. A bar of more than CUT times psync's longest one in
# its group is broken off, for the others would vanish beside it.
BEGIN {
    FS = "\t"
    CUT = 3
    WIDTH = 800; LEFT = 290; RIGHT = 90; ROW = 19; BAR = 13; MARGIN = 16
}
$1 == "bar" {
    if ($2 != group[groups]) group[++groups] = $2
    label[++bars] = $3; value[bars] = $4 + 0; shown[bars] = $5; ours[bars] = $6 != ""
    of[bars] = groups
    if (value[bars] > longest[groups]) longest[groups] = value[bars]
    if (ours[bars] && value[bars] > psyncs[groups]) psyncs[groups] = value[bars]
}
function text(s) {
    gsub(/&/, "\\&amp;", s); gsub(/</, "\\&lt;", s)
    return s
}
END {
    height = 2 * MARGIN + bars * ROW + groups * 2 * ROW - ROW / 2
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" ", WIDTH, height, WIDTH, height
    print "font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">"
    printf "<rect width=\"%d\" height=\"%d\" rx=\"6\" fill=\"#fafafa\" stroke=\"#ccc\"/>\n", WIDTH, height
    y = MARGIN
    for (i = 1; i <= bars; i++) {
        g = of[i]
        if (g != of[i - 1]) {
            if (g > 1) y += ROW / 2
            y += ROW
            printf "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">%s</text>\n", MARGIN, y - 2, text(group[g])
            y += ROW / 2
            scale = longest[g]
            if (psyncs[g] && scale > CUT * psyncs[g]) scale = CUT * psyncs[g]
        }
        cut = value[i] > scale
        length_ = (cut ? scale : value[i]) / scale * (WIDTH - LEFT - RIGHT)
        printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", LEFT - 8, y + BAR - 2, text(label[i])
        printf "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", LEFT, y, length_, BAR, ours[i] ? "#1668b8" : "#a8a8a8"
        if (cut)
            printf "<path d=\"M%.1f %d l6 -%d h5 l-6 %d z\" fill=\"#fafafa\"/>\n", LEFT + length_ - 24, y + BAR + 1, BAR + 2, BAR + 2
        printf "<text x=\"%.1f\" y=\"%d\"%s>%s</text>\n", LEFT + length_ + 6, y + BAR - 2, ours[i] ? " font-weight=\"bold\"" : "", text(shown[i])
        y += ROW
    }
    print "</svg>"
}
